"""Between pictures or clips and their patches, inside which the order is ([frame,] row, column, channel)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskpre.types import Grid


def check_size(x: Float[Tensor, "b c *size"], grid: Grid) -> None:
    """Raise ValueError if the picture or clip is not of the grid's input size."""
    if tuple(x.shape[2:]) != grid.input_size:
        kind = "clip of (frames, rows, columns)" if len(grid.shape) == 3 else "picture of"
        raise ValueError(f"{kind} {tuple(x.shape[2:])} pixels, expected {grid.input_size}")


def patch_view(x: Float[Tensor, "b c *size"], grid: Grid) -> Float[Tensor, "b *rest"]:
    """The patches of a picture (b, gh, gw, c, ph, pw) or clip (b, gt, gh, gw, c, pt, ph, pw) as a view: no
    value is copied.

    Raises ValueError if the size is not the grid's input size.
    """
    check_size(x, grid)
    dims = len(grid.shape)
    for axis in reversed(range(dims)):
        x = x.unflatten(2 + axis, (grid.shape[axis], grid.stride[axis]))
    cells, inside = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return x.permute(0, *cells, 1, *inside)


def patchify(x: Float[Tensor, "b c *size"], grid: Grid) -> Float[Tensor, "b l k"]:
    """Picture or clip to patch vectors, channel fastest: k = pixels of a patch * channels."""
    dims = len(grid.shape)
    return patch_view(x, grid).movedim(1 + dims, -1).flatten(1 + dims).flatten(1, dims)


def patches_at(
    x: Float[Tensor, "b c *size"], grid: Grid, ids: Int[Tensor, "b n"] | None
) -> Float[Tensor, "b n k"]:
    """What `patchify` makes of the cells `ids`, in that order; None stands for all."""
    patches = patchify(x, grid)
    if ids is None:
        return patches
    # By whole rows: torch's gather would look up every value by itself.
    rows = ids + grid.num_cells * torch.arange(len(x), device=x.device)[:, None]
    return patches.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, ids.shape)


def unpatchify(patches: Float[Tensor, "b l k"], grid: Grid) -> Float[Tensor, "b c *size"]:
    """The inverse of `patchify`."""
    dims = len(grid.shape)
    cells = patches.unflatten(2, (*grid.stride, -1)).unflatten(1, grid.shape)
    pairs = [axis for i in range(dims) for axis in (1 + i, 1 + dims + i)]
    x = cells.permute(0, 1 + 2 * dims, *pairs)
    for axis in range(dims):
        x = x.flatten(2 + axis, 3 + axis)
    return x
