"""Convolution stages that compute visible cells only (ConvMAE, Gao et al. 2022, arXiv 2205.03892).

Every coarse cell is hidden or visible as a whole, and nothing but the 5 x 5 convolution looks beyond a cell;
that one reads zeros where cells are hidden. Hidden cells can therefore be left out instead of masked. Tokens
(b, n, d) lie coarse cell by coarse cell, in raster order inside each.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from maskpre.encoders.blocks import Scales
from maskpre.types import Grid, gather_tokens, split_cells


@dataclass(frozen=True)
class Places:
    """The cells of `grid` that tokens belong to."""

    grid: Grid
    ids: Int[Tensor, "b n"]

    @classmethod
    def inside(cls, chosen: Int[Tensor, "b v"], coarse: Grid, fine: Grid) -> "Places":
        """The cells of `fine` in the `chosen` cells of `coarse`."""
        cells = torch.arange(fine.num_cells, device=chosen.device)[None]
        return cls(fine, split_cells(cells, fine, coarse)[0][chosen].flatten(1))


def merge(
    tokens: Float[Tensor, "b n d"], layer: nn.Conv2d, *, side: int, factor: int
) -> Float[Tensor, "b m e"]:
    """A convolution of kernel and stride `factor` inside coarse cells of `side` x `side` tokens."""
    cells = tokens.unflatten(1, (-1, side // factor, factor, side // factor, factor))
    patches = cells.transpose(3, 4).flatten(4).flatten(1, 3)
    return linear(patches, layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)


def pointwise(tokens: Float[Tensor, "b n d"], layer: nn.Conv2d) -> Float[Tensor, "b n e"]:
    """A 1 x 1 convolution."""
    return linear(tokens, layer.weight.flatten(1), layer.bias)


def depthwise(tokens: Float[Tensor, "b n d"], layer: nn.Conv2d, places: Places) -> Float[Tensor, "b n d"]:
    """A spatial convolution read at the tokens' own places; other places hold zeros."""
    batch, _, width = tokens.shape
    empty = tokens.new_zeros(batch, places.grid.num_cells, width)
    full = empty.scatter(1, places.ids[..., None].expand_as(tokens), tokens)
    mixed = layer(full.unflatten(1, places.grid.shape).permute(0, 3, 1, 2))
    return gather_tokens(mixed.permute(0, 2, 3, 1).flatten(1, 2), places.ids)


class ConvEmbed(nn.Module):
    """Non-overlapping convolution, layer norm (eps 1e-5), GELU."""

    def __init__(self, *, in_dim: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Float[Tensor, "b n d"], *, side: int) -> Float[Tensor, "b m e"]:
        """Embed `side` x `side` tokens of each coarse cell."""
        return gelu(self.norm(merge(tokens, self.proj, side=side, factor=self.proj.stride[0])))


class ConvMlp(nn.Module):
    """Two 1 x 1 convolutions with a GELU between."""

    def __init__(self, *, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(dim, hidden_dim, 1), nn.Conv2d(hidden_dim, dim, 1)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform every token."""
        return pointwise(gelu(pointwise(tokens, self.fc1)), self.fc2)


class ConvBlock(nn.Module):
    """A pre-norm block with a 5 x 5 depthwise convolution in place of attention (layer norms of eps 1e-5)."""

    def __init__(self, *, dim: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.conv1, self.conv2 = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.mlp = ConvMlp(dim=dim, hidden_dim=int(dim * mlp_ratio))

    def forward(self, tokens: Float[Tensor, "b n d"], places: Places) -> Float[Tensor, "b n d"]:
        """The residual branch that mixes neighbours."""
        return pointwise(depthwise(pointwise(self.norm1(tokens), self.conv1), self.attn, places), self.conv2)


def run_conv_block(
    block: nn.Module, x: Float[Tensor, "b n d"], scales: Scales, *, places: Places
) -> Float[Tensor, "b n d"]:
    """One block; with `scales`, its residual branches are weighted per sample."""
    conv = cast(ConvBlock, block)
    if scales is None:
        x = x + conv(x, places)
        return x + conv.mlp(conv.norm2(x))
    first, second = (scale.to(x.dtype) for scale in scales)
    x = x + first * conv(x, places)
    return x + second * conv.mlp(conv.norm2(x))
