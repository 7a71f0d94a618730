"""Between feature maps and their visible cells: gathering cells into a dense batch, and scattering back."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _cells(x: Float[Tensor, "b c h w"], shape: tuple[int, ...]) -> Float[Tensor, "b gh gw c ch cw"]:
    """The cells of a map as a view; ValueError if `shape` cells don't divide it."""
    (height, width), (rows, cols) = x.shape[2:], shape
    if height % rows or width % cols:
        raise ValueError(f"a feature map of {height} x {width} can't be cut into {rows} x {cols} cells")
    return (
        x.unflatten(3, (cols, width // cols)).unflatten(2, (rows, height // rows)).permute(0, 2, 4, 1, 3, 5)
    )


def _at(keep: Int[Tensor, "b v"], shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    samples = torch.arange(len(keep), device=keep.device)[:, None]
    return samples, keep // shape[1], keep % shape[1]


def _gather(x: Tensor, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
    return _cells(x, shape)[_at(keep, shape)].flatten(0, 1)


def _scatter(cells: Tensor, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
    channels, height, width = cells.shape[1:]
    canvas = cells.new_zeros(len(keep), channels, height * shape[0], width * shape[1])
    _cells(canvas, shape)[_at(keep, shape)] = cells.unflatten(0, keep.shape)
    return canvas


class _Gather(torch.autograd.Function):
    # Cells are distinct, so that either is the other's gradient and nothing has to be accumulated.
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.shape = shape
        return _gather(x, keep, shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _scatter(grads[0], ctx.saved_tensors[0], ctx.shape), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cells: Tensor, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.shape = shape
        return _scatter(cells, keep, shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _gather(grads[0], ctx.saved_tensors[0], ctx.shape), None, None


def gather_cells(
    x: Float[Tensor, "b c h w"], keep: Int[Tensor, "b v"], shape: tuple[int, ...]
) -> Float[Tensor, "n c ch cw"]:
    """Cut a map into `shape` = (rows, columns) cells and take those that `keep` lists: n = b * v of them.

    The ids of a sample must be distinct. Raises ValueError if the cells don't divide the map.
    """
    cells: Tensor = _Gather.apply(x, keep, shape)
    return cells


def scatter_cells(
    cells: Float[Tensor, "n c ch cw"], keep: Int[Tensor, "b v"], shape: tuple[int, ...]
) -> Float[Tensor, "b c h w"]:
    """The inverse of `gather_cells`, with zeros in all other cells."""
    canvas: Tensor = _Scatter.apply(cells, keep, shape)
    return canvas
