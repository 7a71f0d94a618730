"""Cells that another network attends to stay visible."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from maskpre.encoders.base import EncoderSpec
from maskpre.masking.base import ScoreMasking
from maskpre.reading import read_spec
from maskpre.types import Grid, MaskPlan, Step, Taps

# Half of the least number above 0 that the noise draws: divided by nothing it must not become "not a number".
LEAST = 2.0**-25


class AttentiveMasking(ScoreMasking):
    """Shows cells in proportion to the attention they get (MaskAlign, Xue et al. 2023, section 3.3).

    Importance is what the class token of the pass `of` pays to a cell in `layer` (counted from 1, null for
    the last), averaged over heads. `choice` "sample" draws cells one after another without putting them
    back, the most attended most likely first: ascending e / importance with e ~ Exp(1), which is how torch's
    multinomial draws. "top" takes the most important. A network with coarser cells than the encoder's
    decides for all that lie in one of its own.

    Raises ValueError if no such pass runs, its network has no class token whose attention can be read, or its
    cells don't cover whole cells of the encoder.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        passes: Mapping[str, EncoderSpec],
        ratio: float,
        of: str = "teacher",
        layer: int | None = None,
        choice: Literal["sample", "top"] = "sample",
        stream: str = "mask",
    ) -> None:
        spec = read_spec(passes, of)
        if not spec.class_attention:
            raise ValueError(
                f"the network of the pass {of!r} has no class token whose attention can be read; use a plain "
                "ViT with one"
            )
        super().__init__(grid=_units(spec.out_grid, grid), ratio=ratio, stream=stream)
        self.cells, self.of, self.choice = grid, of, choice
        self.layer = spec.num_layers if layer is None else layer
        if not 1 <= self.layer <= spec.num_layers:
            raise ValueError(f"layer must be one of 1 to {spec.num_layers} of the pass {of!r}, got {layer}")
        self.taps = {of: Taps(attention=frozenset({self.layer}))}

    def importance(self, step: Step) -> Float[Tensor, "b l"]:
        """Mean attention over the heads to every cell; what the class token pays to itself is left out."""
        encoded = step.outputs[self.of]
        return encoded.attention[self.layer].mean(dim=1)[:, encoded.num_prefix_tokens :]

    def scores(self, step: Step) -> Float[Tensor, "b l"]:
        """Small where a cell shall be seen."""
        importance = self.importance(step)
        if self.choice == "top":
            return -importance
        uniform = step.noise.uniform(self.stream, self.grid.num_cells)
        exponential = -torch.log1p(-uniform)
        return exponential.clamp_min(LEAST) / importance

    def forward(self, step: Step) -> MaskPlan:
        """See `ScoreMasking.forward`."""
        return super().forward(step).on(self.cells)


def _units(theirs: Grid, own: Grid) -> Grid:
    """The cells of another network on this one's picture; ValueError unless they hold whole cells of it."""
    sizes = zip(own.shape, theirs.shape, strict=True)
    if len(own.shape) != len(theirs.shape) or any(mine % other for mine, other in sizes):
        raise ValueError(
            f"attention comes on {theirs.shape} cells, which don't hold whole cells of the encoder's "
            f"{own.shape}; choose the teacher's img_size or patch_size so that they agree"
        )
    stride = tuple(size // cells for size, cells in zip(own.input_size, theirs.shape, strict=True))
    return Grid(theirs.shape, stride)
