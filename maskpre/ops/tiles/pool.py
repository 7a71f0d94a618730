"""Pools of the visible part of a picture alone.

The values are those of pooling everything, with zeros in hidden places, and reading the visible places.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import max_pool2d

from maskpre.ops.tiles.rows import as_map, as_rows, sum_rows
from maskpre.ops.tiles.units import Tile, VisibleUnits
from maskpre.ops.tiles.windows import Pool, Windows, check_tiles, copies_of, windows_of


class _MaxPool(torch.autograd.Function):
    """The largest of each window of a tile and what lies around it; the gradient goes where it came from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, near: Tensor, readers: Tensor, windows: Windows) -> Tensor:
        ctx.kernel = [window.kernel for window in windows]
        ctx.stride = [window.stride for window in windows]
        ctx.dilation = [window.dilation for window in windows]
        empty = rows.new_zeros(1, rows.shape[1])
        filled = torch.cat([rows, empty, empty - torch.inf])
        tiles = as_map(filled.index_select(0, near.flatten()), len(near), near.shape[2])
        out, where = max_pool2d(
            tiles, ctx.kernel, ctx.stride, 0, ctx.dilation, ceil_mode=False, return_indices=True
        )
        ctx.save_for_backward(where, readers)
        ctx.shape = tiles.shape
        return as_rows(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        where, readers = ctx.saved_tensors
        last = torch.channels_last
        grad = as_map(grad.contiguous(), len(where), where.shape[3])
        like = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=last)
        tiles = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, like, ctx.kernel, ctx.stride, [0, 0], ctx.dilation, False, where
        )
        return sum_rows(as_rows(tiles), readers), None, None, None


def check_pool(layer: Pool, windows: Windows, tile: Tile) -> None:
    """Raise ValueError if the layer makes no tiles of tiles of this size."""
    if any(size % window.stride for window, size in zip(windows, tile, strict=True)):
        raise ValueError(f"{layer} makes no tiles of tiles of {tile[0]} x {tile[1]} positions")
    inside = all(window.stays_inside for window in windows)
    if not inside and isinstance(layer, nn.MaxPool2d) and not layer.ceil_mode:
        check_tiles(layer, windows, tile)


def tile_pool2d(x: Float[Tensor, "b c t w"], layer: Pool, units: VisibleUnits) -> Float[Tensor, "b c u x"]:
    """Apply the layer to the tall map `x`.

    Raises ValueError if the layer makes no tile of a tile.
    """
    tile, windows = units.tile(x), windows_of(layer)
    check_pool(layer, windows, tile)
    if all(window.stays_inside for window in windows):
        return layer(x)
    if not isinstance(layer, nn.MaxPool2d) or layer.ceil_mode:
        return units.pack(layer(units.unpack(x)))
    near = units.around(tile, windows[0].inputs(tile[0]), windows[1].inputs(tile[1]))
    rows = _MaxPool.apply(as_rows(x), near, copies_of(units, tile, windows), windows)
    return as_map(rows, len(x), tile[1] // windows[1].stride)
