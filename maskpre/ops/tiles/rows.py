"""Feature maps as rows: one row of channels per position, contiguous where the map is channels last.

A row number one past the last stands for a row of zeros wherever rows are gathered.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag


def as_rows(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "n c"]:
    """The positions of a map, in raster order, sample by sample."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def as_map(rows: Float[Tensor, "n c"], num: int, width: int) -> Float[Tensor, "b c h w"]:
    """`num` maps of the given width out of rows, channels last in memory."""
    return rows.view(num, -1, width, rows.shape[1]).permute(0, 3, 1, 2)


def take_rows(rows: Float[Tensor, "n c"], ids: Int[Tensor, "*m"]) -> Float[Tensor, "k c"]:
    """Rows by number, flattened; one past the last is zeros."""
    return with_zeros(rows).index_select(0, ids.flatten())


def with_zeros(rows: Float[Tensor, "n c"]) -> Float[Tensor, "m c"]:
    """The rows and one row of zeros."""
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


def sum_rows(rows: Float[Tensor, "n c"], ids: Int[Tensor, "k m"]) -> Float[Tensor, "k c"]:
    """Sums of m rows each; one past the last is zeros. Records no gradient."""
    return embedding_bag(ids, with_zeros(rows), mode="sum")


class _Move(torch.autograd.Function):
    """Rows to other places; what isn't named is dropped, places that nothing goes to are zero."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ids: Tensor, back: Tensor, spread: bool) -> Tensor:
        ctx.save_for_backward(back)
        ctx.spread = spread
        return take_rows(rows, ids) if spread else rows.index_select(0, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        grad = grad.contiguous()
        return grad.index_select(0, back) if ctx.spread else take_rows(grad, back), None, None, None


def pick(
    rows: Float[Tensor, "n c"], ids: Int[Tensor, "k"], *, places: Int[Tensor, "n"]
) -> Float[Tensor, "k c"]:
    """Keep the rows `ids`, no row twice.

    `places` says for every row where it went; one past the last: nowhere.
    """
    return _Move.apply(rows, ids, places, False)


def spread(
    rows: Float[Tensor, "n c"], places: Int[Tensor, "k"], *, ids: Int[Tensor, "n"]
) -> Float[Tensor, "k c"]:
    """The inverse of `pick`: rows at their places, zeros elsewhere."""
    return _Move.apply(rows, places, ids, True)
