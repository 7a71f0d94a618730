"""Networks that teach and never learn."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, Self

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from maskpre.checkpoints.sources import PlannedWeights
from maskpre.encoders.base import Encoder, TappedEncoder
from maskpre.encoders.create import check_name
from maskpre.teachers.networks import teacher_network
from maskpre.teachers.weights import fill_teacher, load_teacher
from maskpre.types import OUTPUT, Encoded, MaskPlan, Noise, Taps


class FrozenTeacher(TappedEncoder):
    """A timm model by name, with weights from timm, a file, or none; always in evaluation mode.

    Its network is no part of the module's own: it moves with it between devices and number formats, but is
    in no `state_dict`, among no parameters, and never in training mode. A copy shares it.

    `weights` is all that `open_source` takes: a file of CLIP (OpenAI, open_clip, transformers), of DINO or
    MAE, a checkpoint of this package, "timm:NAME", a run that comes first (`Stage`); null leaves the network
    as it is initialised. The teacher reads pictures of `img_size`, null for those of the view (`view_size`);
    a view of another size is resized bicubically without anti-aliasing, as MaskAlign (Xue et al. 2023) does,
    and so is the position table.
    `mean` and `std` are what it was trained with, null for timm's of that name; `view_mean` and `view_std`
    are taken out of the view first. `projection_dim` adds CLIP's projection behind the final norm, on all
    tokens. `precision` "bf16" keeps and runs it in bfloat16. Other sizes replace the named model's.

    Raises ValueError if timm refuses the sizes or the weights are missing or of another shape.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        *,
        name: str,
        weights: str | PlannedWeights | None,
        view_size: int,
        view_mean: Sequence[float],
        view_std: Sequence[float],
        img_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        patch_size: int | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: float | None = None,
        norm_eps: float | None = None,
        projection_dim: int | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        check_name(name)
        self.name = name
        mean, std = _statistics(name, mean, std, len(view_mean))
        sizes = {
            "in_chans": len(view_mean),
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
        }
        # What a teacher without weights starts as must not shift the draws of the networks that learn.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = teacher_network(name, img_size=img_size or view_size, options=sizes)
            projection = _projection(network.spec.embed_dim, projection_dim)
        if weights is not None:
            load_teacher(network, projection, weights=weights, name=name)
        self.spec = replace(network.spec, embed_dim=projection_dim or network.spec.embed_dim)
        _set_norm_eps(network, norm_eps)
        own = nn.ModuleList([network, projection])
        own.to(torch.bfloat16 if precision == "bf16" else torch.float32).requires_grad_(False).eval()
        # Inside a tuple torch doesn't find it.
        self._held = (own,)
        old_mean, old_std, new_mean, new_std = (
            torch.tensor(list(values), dtype=torch.float64)[:, None, None]
            for values in (view_mean, view_std, mean, std)
        )
        self.register_buffer("scale", old_std / new_std, persistent=False)
        self.register_buffer("shift", (old_mean - new_mean) / new_std, persistent=False)

    def fill(self, state: Mapping[str, Tensor]) -> None:
        """Put timm-named weights in; UserError if they don't fit."""
        fill_teacher(self.network, self._held[0][1], state, where="the given weights", name=self.name)

    @property
    def network(self) -> Encoder:
        """What is asked."""
        network: Any = self._held[0][0]
        return network

    def held_state(self) -> dict[str, Tensor]:
        """All weights of the network and its projection, which `state_dict` leaves out."""
        return self._held[0].state_dict()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same object: nothing of it ever changes."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._held[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Nothing to do: without gradients no activation is stored."""

    def look(self, view: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """A view as the network wants it: its size, its statistics."""
        size = self.network.spec.grid.input_size
        if tuple(view.shape[2:]) != size:
            view = interpolate(view, size=size, mode="bicubic", align_corners=False)
        return torch.addcmul(self.shift.to(view.dtype), view, self.scale.to(view.dtype))

    @torch.no_grad()
    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        plan: MaskPlan | None = None,
        noise: Noise | None = None,
        taps: Taps = OUTPUT,
    ) -> Encoded:
        """Encode without gradients; see `TappedEncoder.forward`."""
        network, projection = self._held[0]
        weight = next(network.parameters())
        asked = () if taps == OUTPUT else (taps,)
        # A half-precision format chosen for the student would undo the teacher's own.
        own = torch.autocast(x.device.type, enabled=False) if weight.dtype.itemsize == 2 else nullcontext()
        with own:
            encoded: Encoded = network(self.look(x).to(weight.dtype), plan, None, *asked)
            if not taps.output or isinstance(projection, nn.Identity):
                return encoded
            prefix = None if encoded.prefix is None else projection(encoded.prefix)
            return replace(encoded, tokens=projection(encoded.tokens), prefix=prefix)


def _projection(width: int, dim: int | None) -> nn.Module:
    return nn.Identity() if dim is None else nn.Linear(width, dim, bias=False)


def _statistics(
    name: str, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Given values, or timm's for the name; ValueError unless there is one of each per channel."""
    published: Any = timm.get_pretrained_cfg(name)
    mean, std = mean or published.mean, std or published.std
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"mean has {len(mean)} and std {len(std)} values, the view has {channels} channels; set one each "
            "per channel"
        )
    return mean, std


def _set_norm_eps(network: nn.Module, eps: float | None) -> None:
    for part in network.modules():
        if isinstance(part, nn.LayerNorm) and eps is not None:
            part.eps = eps
