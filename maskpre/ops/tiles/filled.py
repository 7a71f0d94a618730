"""A convolution of whole maps that hold one learnt vector wherever nothing is kept."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from maskpre.ops.gemm import affine, outer_sum
from maskpre.ops.tiles.rows import as_map, as_rows, sum_rows, take_rows
from maskpre.ops.tiles.units import Tile, VisibleUnits


class _Filled(torch.autograd.Function):
    """Every row times every tap once, and each output the sum of the products that reach it.

    The last row is what fills the map: however many positions hold it, it is multiplied once.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, terms: Tensor, readers: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, terms, readers)
        ctx.has_bias = bias is not None
        products = affine(rows, weight).view(-1, len(weight) // terms.shape[1])
        out = sum_rows(products, terms)
        return out if bias is None else out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, terms, readers = ctx.saved_tensors
        grad = grad.contiguous()
        own = take_rows(grad, readers).view(len(readers), -1)
        reads_fill = terms.div(terms.shape[1], rounding_mode="floor") == len(readers)
        fill = reads_fill.to(grad.dtype).t() @ grad
        d_products = torch.cat([own, fill.view(1, -1)])
        d_rows = affine(d_products, weight.t())
        d_weight = outer_sum(d_products, rows).contiguous()
        return d_rows, d_weight, grad.sum(0) if ctx.has_bias else None, None, None


def filled_conv2d(
    x: Float[Tensor, "b c t w"], fill: Float[Tensor, "c"], layer: nn.Conv2d, units: VisibleUnits
) -> Float[Tensor, "b d h w"]:
    """Apply the layer to the whole map of the tall map `x`, with `fill` at its hidden positions.

    The layer must have an odd kernel, stride 1 and half its kernel as padding.
    """
    tile, side = units.tile(x), layer.kernel_size[0]
    rows = torch.cat([as_rows(x), fill[None]])
    weight = layer.weight.permute(2, 3, 0, 1).flatten(0, 2)
    out = _Filled.apply(rows, weight, layer.bias, _terms(units, tile, side), _readers(units, tile, side))
    return as_map(out, len(x), units.shape[1] * tile[1])


def _terms(units: VisibleUnits, tile: Tile, side: int) -> Int[Tensor, "k n"]:
    """For every position of the whole maps, the products of a row and a tap that sum up to its output."""

    def find() -> Tensor:
        whole = units.whole(tile)
        height, width = whole.shape[1:]
        outside = len(units.cells(tile)) + 1
        framed = pad(whole, (side // 2,) * 4, value=outside)
        taps = range(side)
        near = [framed[:, down : down + height, across : across + width] for down in taps for across in taps]
        found = torch.stack(near, dim=-1).flatten(0, 2)
        products = found * side**2 + units.count(range(side**2))
        return torch.where(found < outside, products, outside * side**2)

    return units.once(("terms", *tile, side), find)


def _readers(units: VisibleUnits, tile: Tile, side: int) -> Int[Tensor, "n k"]:
    """For every row and tap, the position whose output it is part of; one past the last: none."""

    def find() -> Tensor:
        height, width = units.shape[0] * tile[0], units.shape[1] * tile[1]
        cells = units.cells(tile)
        away = side // 2 - units.count(range(side))
        line = (cells // width % height)[:, None, None] + away[:, None]
        column = (cells % width)[:, None, None] + away
        inside = (line >= 0) & (line < height) & (column >= 0) & (column < width)
        position = (cells // (width * height) * height)[:, None, None] + line
        places = torch.where(inside, position * width + column, len(units.keep) * height * width)
        return places.flatten(1)

    return units.once(("readers", *tile, side), find)
