"""Teachers of pictures that look at clips."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from maskpre.encoders.base import TappedEncoder
from maskpre.types import OUTPUT, Encoded, Grid, MaskPlan, Noise, Taps


class FrameTeacher(TappedEncoder):
    """Shows every `every`-th frame of a clip to `teacher`, a frozen network of pictures, from the first on.

    Its tokens of all these frames, in the order (frame, row, column), are those of the clip; class and
    register tokens are left out. `map_size` resizes every frame's map of tokens bilinearly to that many
    rows and columns: SIGMA (Salehi et al., ECCV 2024) does so with the 16 x 16 cells that DINOv2 has at 224
    pixels.

    Raises ValueError unless `every` divides `num_frames`, for a `map_size` that doesn't divide the view, or
    if `teacher` reads clips itself.
    """

    def __init__(
        self, *, teacher: TappedEncoder, num_frames: int, every: int = 2, map_size: int | None = None
    ) -> None:
        super().__init__()
        grid = teacher.spec.out_grid
        if every < 1 or num_frames % every:
            raise ValueError(f"every ({every}) must divide num_frames ({num_frames})")
        if len(grid.shape) != 2:
            raise ValueError(f"the teacher must read pictures, but has a grid of {grid.shape}")
        self.teacher, self.every = teacher, every
        self.resized = None if map_size in (None, *grid.shape) else map_size
        picture = grid if map_size is None else Grid.over(grid.input_size, _stride(grid, map_size))
        clip = Grid((num_frames // every, *picture.shape), (every, *picture.stride))
        self.spec = replace(
            teacher.spec, grid=clip, out_grid=clip, num_prefix_tokens=0, class_attention=False, packs=False
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Nothing to do: without gradients no activation is stored."""

    @torch.no_grad()
    def forward(
        self,
        x: Float[Tensor, "b c t h w"],
        plan: MaskPlan | None = None,
        noise: Noise | None = None,
        taps: Taps = OUTPUT,
    ) -> Encoded:
        """Encode whole clips; ValueError under a plan."""
        if plan is not None:
            raise ValueError("FrameTeacher reads whole clips only; give its pass masking=null")
        frames = x[:, :, :: self.every].transpose(1, 2)
        encoded: Encoded = self.teacher(frames.flatten(0, 1), None, None, taps)
        prefix = self.teacher.spec.num_prefix_tokens
        hidden = {layer: self._clip(tokens[:, prefix:], len(x)) for layer, tokens in encoded.hidden.items()}
        return Encoded(self._clip(encoded.tokens, len(x)), self.spec.out_grid, hidden=hidden)

    def _clip(self, tokens: Float[Tensor, "f n d"], batch: int) -> Float[Tensor, "b l d"]:
        """Tokens of single frames as those of clips."""
        if self.resized is not None:
            maps = tokens.unflatten(1, self.teacher.spec.out_grid.shape).permute(0, 3, 1, 2)
            maps = interpolate(maps, size=self.spec.out_grid.shape[1:], mode="bilinear", align_corners=False)
            tokens = maps.flatten(2).transpose(1, 2)
        return tokens.unflatten(0, (batch, -1)).flatten(1, 2)


def _stride(grid: Grid, map_size: int) -> tuple[int, ...]:
    if any(size % map_size for size in grid.input_size):
        raise ValueError(
            f"map_size ({map_size}) must divide the teacher's picture of {grid.input_size} pixels"
        )
    return tuple(size // map_size for size in grid.input_size)
