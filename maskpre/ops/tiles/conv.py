"""Convolutions of the visible part of a picture alone.

The values are those of convolving everything, with zeros in hidden places, and reading the visible places;
the work is that of the visible places. Three ways lead there, and the shape of the layer decides which:
"inside" where a kernel stays within its tile: the layer as it is. "halo" where tiles are large: every tile is
gathered with the positions around it and convolved without padding. "columns" where tiles are small: what
every output reads is gathered into one long row, and the convolution is a matrix product.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, conv_transpose2d

from maskpre.ops.gemm import affine, outer_sum
from maskpre.ops.tiles.rows import as_map, as_rows, sum_rows, take_rows
from maskpre.ops.tiles.units import Tile, VisibleUnits
from maskpre.ops.tiles.windows import check_tiles, read_by, readers_of, windows_of

Way = Literal["inside", "halo", "columns", "whole"]

# Outputs per tile from which a library's convolution of tiles outruns one long matrix product.
HALO_FROM = 16


class _Linear(torch.autograd.Function):
    """A 1 x 1 convolution."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.has_bias = bias is not None
        return affine(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad = grad.contiguous()
        d_rows = affine(grad, weight.t()) if ctx.needs_input_grad[0] else None
        d_weight = outer_sum(grad, rows).contiguous() if ctx.needs_input_grad[1] else None
        return d_rows, d_weight, grad.sum(0) if ctx.has_bias else None


class _Columns(torch.autograd.Function):
    """A convolution as a product of what every output reads with a matrix of all taps."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, reads: Tensor, readers: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, reads, readers)
        ctx.has_bias = bias is not None
        return affine(take_rows(rows, reads).view(len(reads), -1), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, reads, readers = ctx.saved_tensors
        grad = grad.contiguous()
        d_rows = d_weight = None
        if ctx.needs_input_grad[0]:
            d_rows = sum_rows(affine(grad, weight.t()).view(-1, rows.shape[1]), readers)
        if ctx.needs_input_grad[1]:
            d_weight = outer_sum(grad, take_rows(rows, reads).view(len(reads), -1)).contiguous()
        return d_rows, d_weight, grad.sum(0) if ctx.has_bias else None, None, None


class _Halo(torch.autograd.Function):
    """A convolution of tiles with what lies around them.

    The gradient of the input is no scatter: tiles of the output's gradient are gathered with what lies around
    them, and convolved the other way: `near` are the rows around tiles of the input, `far` those around tiles
    of the output where they differ.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        near: Tensor,
        far: Tensor | None,
        layer: nn.Conv2d,
        tile: Tile,
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, near, far)
        ctx.has_bias, ctx.layer, ctx.tile = bias is not None, layer, tile
        out = conv2d(_tiles(rows, near), weight, bias, layer.stride, 0, layer.dilation, layer.groups)
        return as_rows(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, near, far = ctx.saved_tensors
        grad = grad.contiguous()
        d_rows = d_weight = None
        if ctx.needs_input_grad[0]:
            around = _tiles(grad, near if far is None else far)
            d_rows = as_rows(_read_back(around, weight, ctx.layer, ctx.tile))
        if ctx.needs_input_grad[1]:
            d_weight = _weight_gradient(grad, _tiles(rows, near), weight, ctx.layer, ctx.tile)
        return d_rows, d_weight, grad.sum(0) if ctx.has_bias else None, None, None, None, None


def _tiles(rows: Tensor, ids: Tensor) -> Tensor:
    """Gathered rows as one small map per tile."""
    return as_map(take_rows(rows, ids), len(ids), ids.shape[2])


def _read_back(grad: Tensor, weight: Tensor, layer: nn.Conv2d, tile: Tile) -> Tensor:
    """The gradient of tiles of the input, given that of all outputs that read them."""
    begins, crops = [], []
    for window, size, outputs in zip(windows_of(layer), tile, grad.shape[2:], strict=True):
        first = window.padding - window.outputs(size).start * window.stride
        behind = (outputs - 1) * window.stride + window.reach + 1 - first - size
        crops.append(min(first, behind))
        begins.append(first - crops[-1])
    whole = conv_transpose2d(grad, weight, None, layer.stride, crops, 0, layer.groups, layer.dilation)
    return whole[:, :, begins[0] : begins[0] + tile[0], begins[1] : begins[1] + tile[1]]


def _weight_gradient(grad: Tensor, near: Tensor, weight: Tensor, layer: nn.Conv2d, tile: Tile) -> Tensor:
    out = as_map(grad, len(near), tile[1] // layer.stride[1])
    return torch.ops.aten.convolution_backward(
        out,
        near,
        weight,
        None,
        layer.stride,
        [0, 0],
        layer.dilation,
        False,
        [0, 0],
        layer.groups,
        [False, True, False],
    )[1]


def way(layer: nn.Conv2d, tile: Tile) -> Way:
    """How the layer is computed on tiles of this size."""
    down, across = windows_of(layer)
    if down.stays_inside and across.stays_inside:
        return "inside"
    outputs = tile[0] // down.stride * (tile[1] // across.stride)
    if outputs >= HALO_FROM:
        return "halo"
    return "columns" if layer.groups == 1 else "whole"


def tile_conv2d(
    x: Float[Tensor, "b c t w"], layer: nn.Conv2d, units: VisibleUnits
) -> Float[Tensor, "b d u x"]:
    """Apply the layer to the tall map `x`.

    Raises ValueError if the layer makes no tile of a tile: its stride must divide the tile, and its padding
    must keep outputs with their inputs.
    """
    tile, axes = units.tile(x), windows_of(layer)
    check_tiles(layer, axes, tile)
    chosen = way(layer, tile)
    if chosen == "whole":
        return units.pack(layer(units.unpack(x)))
    weight, bias = layer.weight, layer.bias
    if chosen == "inside" and (layer.kernel_size != (1, 1) or layer.groups > 1 or not by_hand(x)):
        return layer(x)
    if torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
    if chosen == "inside":
        x = x[:, :, :: axes[0].stride, :: axes[1].stride]
        rows = _Linear.apply(as_rows(x), weight.flatten(1), bias)
    elif chosen == "columns":
        taps = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        rows = _Columns.apply(
            as_rows(x), taps, bias, read_by(units, tile, axes), readers_of(units, tile, axes)
        )
    else:
        near = units.halo(tile, axes[0].inputs(tile[0]), axes[1].inputs(tile[1]))
        out = tile[0] // axes[0].stride, tile[1] // axes[1].stride
        far = units.halo(out, axes[0].outputs(tile[0]), axes[1].outputs(tile[1]))
        # A compiler does not take the same tensor twice.
        rows = _Halo.apply(as_rows(x), weight, bias, near, None if far is near else far, layer, tile)
    return as_map(rows, len(x), tile[1] // axes[1].stride)


def by_hand(x: Tensor) -> bool:
    """Whether products on the CPU are to be computed here; a compiler and autocast have their own ways."""
    return (
        x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    )


def tile_linear(x: Float[Tensor, "*n i"], layer: nn.Linear) -> Float[Tensor, "*n o"]:
    """Apply the layer to rows, by the faster of the libraries at hand."""
    if not by_hand(x):
        return layer(x)
    return _Linear.apply(x.reshape(-1, x.shape[-1]), layer.weight, layer.bias).unflatten(0, x.shape[:-1])
