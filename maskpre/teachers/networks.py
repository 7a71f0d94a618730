"""Teachers' networks by timm's names."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from maskpre.encoders.base import Encoder, EncoderSpec
from maskpre.encoders.create import check_name
from maskpre.encoders.vit import ViT
from maskpre.evaluation.features import encode
from maskpre.types import Encoded, Grid, MaskPlan, Noise


class TimmNetwork(Encoder):
    """Any timm model, of which only the final features can be read: tokens, or a map's cells as tokens.

    Raises ValueError if timm has no such model or refuses the options.
    """

    def __init__(self, *, name: str, img_size: int, options: Mapping[str, object]) -> None:
        super().__init__()
        check_name(name)
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        net: Any = _create(name, img_size, given)
        self.net = net
        grid = _grid(net, img_size)
        self.spec = EncoderSpec(
            embed_dim=net.num_features,
            grid=grid,
            out_grid=grid,
            num_prefix_tokens=getattr(net, "num_prefix_tokens", 0),
            in_chans=given.get("in_chans", 3),
            hidden="drop",
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], plan: MaskPlan | None = None, noise: Noise | None = None
    ) -> Encoded:
        """Encode the whole picture; ValueError under a plan."""
        if plan is not None:
            raise ValueError(
                f"{type(self.net).__name__} reads whole pictures only; give its pass masking=null"
            )
        return encode(self.net, x)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations where the model can."""
        self.net.set_grad_checkpointing(enable)


def _create(name: str, img_size: int, given: Mapping[str, Any]) -> nn.Module:
    """A headless model; those that read pictures of any size are not told one."""
    errors = []
    sizes: list[dict[str, Any]] = [{"img_size": img_size}, {}]
    for size in sizes:
        try:
            return timm.create_model(name, num_classes=0, **size, **given)
        except (AssertionError, TypeError) as error:
            errors.append(str(error))
    raise ValueError(f"timm can't build {name!r} with img_size {img_size} and {dict(given)}: {errors[-1]}")


def _grid(net: Any, img_size: int) -> Grid:
    if hasattr(net, "num_prefix_tokens") and hasattr(net, "patch_embed"):
        return Grid(tuple(net.patch_embed.grid_size), tuple(net.patch_embed.patch_size))
    stride = net.feature_info[-1]["reduction"]
    return Grid.over((img_size, img_size), (stride, stride))


def is_plain_vit(name: str) -> bool:
    """Whether a name stands for timm's `VisionTransformer` itself."""
    with torch.device("meta"):
        return type(timm.create_model(name)) is VisionTransformer


def teacher_network(name: str, *, img_size: int, options: Mapping[str, Any]) -> Encoder:
    """A network with fresh weights: a `ViT` where timm's is plain, so that its inside can be read.

    `options` that are None stay the named model's. Raises ValueError if timm has no such model or refuses
    the options.
    """
    check_name(name)
    if is_plain_vit(name):
        return ViT(name=name, img_size=img_size, position="learned", init="timm", **options)
    return TimmNetwork(name=name, img_size=img_size, options=options)
