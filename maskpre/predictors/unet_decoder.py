"""SparK's decoder: feature maps filled in and put together from coarse to fine."""

from math import log2, prod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.checkpoint import checkpoint

from maskpre.encoders.base import EncoderSpec, MapSpec
from maskpre.nearest import nearest_number
from maskpre.ops.batch_norm import Statistics, check_statistics, normalise_rows
from maskpre.ops.patchify import patchify
from maskpre.ops.tiles.conv import by_hand
from maskpre.ops.tiles.filled import filled_conv2d
from maskpre.ops.tiles.units import VisibleUnits
from maskpre.ops.upsample import upsample
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Grid, Located, MaskPlan, Step

Norm = Literal["batch", "layer", "none"]


class Densify(nn.Module):
    """Fills one feature map: norm over visible positions, a learnt token at hidden ones, and a projection.

    The projection mixes tokens and features: 1x1 for the coarsest map (nothing if its width is right), else
    3x3 (Tian et al. 2023, section 3.2).
    """

    def __init__(self, *, spec: MapSpec, width: int, coarsest: bool, norm: Norm) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = nn.BatchNorm2d(spec.channels)
        elif norm == "layer":
            self.norm = LayerNorm2d(spec.channels, eps=1e-6)
        self.mask_token = nn.Parameter(torch.empty(1, spec.channels, 1, 1))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        if coarsest and spec.channels == width:
            self.proj: nn.Module = nn.Identity()
        else:
            kernel = 1 if coarsest else 3
            self.proj = nn.Conv2d(spec.channels, width, kernel, padding=kernel // 2)

    def forward(
        self, x: Float[Tensor, "b c h w"], plan: MaskPlan | None, *, statistics: Statistics
    ) -> Float[Tensor, "b d h w"]:
        """The map without holes, in the decoder's width."""
        if plan is None:
            return self.proj(self._normalise(x, statistics))
        rows, columns = plan.grid.shape
        units = VisibleUnits(keep=plan.keep, shape=(rows, columns))
        normed = self._normalise(units.pack(x), statistics)
        if isinstance(self.proj, nn.Conv2d) and by_hand(normed):
            return filled_conv2d(normed, self.mask_token.flatten(), self.proj, units)
        size = (x.shape[2], x.shape[3])
        stride = tuple(pixels // n for pixels, n in zip(plan.grid.input_size, size, strict=True))
        hidden = plan.at(Grid(size, stride)).unflatten(1, (1, *size))
        return self.proj(torch.where(hidden, self.mask_token.to(x.dtype), units.unpack(normed)))

    def _normalise(self, x: Tensor, statistics: Statistics) -> Tensor:
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm):
            return normalise_rows(self.norm, x, statistics=statistics)
        return self.norm(x)


class UpBlock(nn.Module):
    """Twice the resolution: a transposed 4x4 convolution, then two 3x3 convolutions with batch norms."""

    def __init__(self, *, width: int, out_width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU6(inplace=True)
        self.conv2 = nn.Conv2d(width, out_width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)

    def forward(
        self, x: Float[Tensor, "b c h w"], *, statistics: Statistics, again: bool = False
    ) -> Float[Tensor, "b d 2*h 2*w"]:
        """Upsample; `again` leaves running statistics as they are."""
        x = upsample(x, self.up, self.conv1)
        x = self.act(normalise_rows(self.bn1, x, statistics=statistics, again=again))
        return normalise_rows(self.bn2, self.conv2(x), statistics=statistics, again=again)


class UNetDecoder(Predictor):
    """SparK's hierarchical decoder (Tian et al. 2023, section 3.2): one block per halving of the stride.

    `width` is that of the coarsest map; it is halved, rounding down, with every block. Of several maps of one
    stride the last is read. `densify_norm` normalises the encoder's maps: "batch" for networks with batch
    norms, "layer" for ConvNeXt. `statistics` "world" shares batch statistics among all ranks in training.
    `out_dim` values per cell are its pixels, or if they are too few for that, averages over its pixels (of a
    loss, say).

    Raises ValueError if the encoder gives no feature maps, its stride is no power of two, the width can't be
    halved as often, or the values are neither pixels nor as few as the last block's channels.
    """

    fills_hidden: ClassVar[bool] = True

    def __init__(
        self,
        *,
        encoder: EncoderSpec,
        out_dim: int,
        region: str,
        width: int = 768,
        densify_norm: Norm = "batch",
        statistics: Statistics = "world",
    ) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        check_statistics(statistics)
        if densify_norm not in ("batch", "layer", "none"):
            raise ValueError(f"densify_norm must be 'batch', 'layer' or 'none', got {densify_norm!r}")
        if not encoder.maps:
            raise ValueError(
                "UNetDecoder reads feature maps of several strides, and the encoder gives none; use "
                "encoder=resnet or encoder=convnext, or predictor=mae_decoder"
            )
        self.grid, self.statistics = encoder.out_grid, statistics
        depth = _count_blocks(self.grid.stride, width)
        widths = [width // 2**i for i in range(depth + 1)]
        pixels = prod(self.grid.stride)
        self.averages = out_dim <= widths[-1]
        if not self.averages and out_dim % pixels:
            raise ValueError(
                f"{out_dim} values per cell of {self.grid.stride} pixels are no picture, and more than the "
                f"{widths[-1]} channels at full resolution; use target=pixels, or predictor=mae_decoder"
            )
        self.levels = [round(log2(self.grid.stride[0] / spec.stride)) for spec in encoder.maps]
        # A later map of the same stride replaces an earlier one.
        self.sources = {level: number for number, level in enumerate(self.levels) if level < depth}
        self.densify = nn.ModuleDict(
            {
                str(level): Densify(
                    spec=encoder.maps[number], width=widths[level], coarsest=level == 0, norm=densify_norm
                )
                for level, number in sorted(self.sources.items())
            }
        )
        self.blocks = nn.ModuleList(UpBlock(width=w, out_width=w // 2) for w in widths[:-1])
        self.proj = nn.Conv2d(widths[-1], out_dim if self.averages else out_dim // pixels, 1)
        self._recompute = False
        _init(self.blocks)
        _init(self.proj)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass."""
        self._recompute = enable

    def dense_maps(self, encoded: Encoded, plan: MaskPlan | None) -> dict[int, Tensor]:
        """The filled maps by the number of the block that reads them, from coarse to fine."""
        return {
            int(level): densify(encoded.maps[self.sources[int(level)]], plan, statistics=self.statistics)
            for level, densify in self.densify.items()
        }

    def picture(self, maps: dict[int, Tensor]) -> Float[Tensor, "b c h w"]:
        """The picture at full resolution, from filled maps."""
        x = maps[0]
        for number, block in enumerate(self.blocks):
            if number > 0 and number in maps:
                x = x + maps[number]
            if self._recompute and torch.is_grad_enabled():
                x = checkpoint(_Once(block, self.statistics), x, use_reentrant=False)
            else:
                x = block(x, statistics=self.statistics)
        return self.proj(x)

    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Predict every pixel, cut into cells with values in the order (row, column, channel)."""
        picture = self.picture(self.dense_maps(encoded, plan))
        if self.averages:
            means = avg_pool2d(picture, self.grid.stride)
            return Located(means.flatten(2).transpose(1, 2), self.grid)
        return Located(patchify(picture, self.grid), self.grid)


class _Once:
    """A block that keeps its running statistics when it runs for the second time."""

    def __init__(self, block: nn.Module, statistics: Statistics) -> None:
        self.block, self.statistics, self.ran = block, statistics, False

    def __call__(self, x: Tensor) -> Tensor:
        again, self.ran = self.ran, True
        return self.block(x, statistics=self.statistics, again=again)


def _count_blocks(stride: tuple[int, ...], width: int) -> int:
    """Blocks that lead from a stride to single pixels."""
    depth = round(log2(stride[0]))
    if set(stride) != {2**depth}:
        raise ValueError(f"the coarsest map's stride must be a power of two, got {stride}")
    if width < 2**depth:
        nearest = nearest_number(width, [2**depth])
        raise ValueError(f"width ({width}) can't be halved {depth} times{nearest}")
    return depth


def _init(module: nn.Module) -> None:
    """SparK's: convolutions truncated normal, transposed ones Kaiming normal over their fan-out, biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
