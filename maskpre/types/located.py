"""Tokens that know which cells they belong to."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskpre.types.grid import Grid


@dataclass(frozen=True)
class Located:
    """Tokens and the cells of `grid` they belong to; `ids` None means all cells in raster order.

    `covers` names a region of the plan if the tokens are exactly its cells. `prefix` holds tokens that belong
    to no cell, the class token first. With `lengths` only a sample's first tokens count; the others are there
    to make samples equally long and must have no weight in any loss.
    """

    tokens: Float[Tensor, "b n d"]
    grid: Grid
    ids: Int[Tensor, "b n"] | None = None
    covers: str | None = None
    prefix: Float[Tensor, "b p d"] | None = None
    lengths: Int[Tensor, "b"] | None = None

    @property
    def counted(self) -> Bool[Tensor, "b n"] | None:
        """Which tokens count; None if all do."""
        if self.lengths is None:
            return None
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]

    def with_class(self) -> Float[Tensor, "b n+1 d"]:
        """The class token, then the tokens of the cells; AssertionError without a prefix."""
        assert self.prefix is not None
        return torch.cat([self.prefix[:, :1], self.tokens], dim=1)


def gather_tokens(tokens: Tensor, ids: Int[Tensor, "b n"]) -> Tensor:
    """Pick tokens[b, ids[b, i]] for every sample."""
    return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[-1]))


def align(source: Located, *, like: Located) -> Tensor:
    """The source's tokens at the cells where `like` has its own, in its order.

    Raises ValueError if the grids differ. Cells of `like` that `source` lacks are not detected on the
    device; they yield another cell's token.
    """
    if source.grid != like.grid:
        raise ValueError(
            f"tokens on grid {source.grid.shape} of stride {source.grid.stride} can't be aligned with "
            f"grid {like.grid.shape} of stride {like.grid.stride}"
        )
    if source.ids is None:
        return source.tokens if like.ids is None else gather_tokens(source.tokens, like.ids)
    if source.ids is like.ids:
        return source.tokens
    where = source.ids.new_zeros(source.ids.shape[0], source.grid.num_cells)
    position = torch.arange(source.ids.shape[1], device=where.device)
    where.scatter_(1, source.ids, position.expand_as(source.ids))
    return gather_tokens(source.tokens, where if like.ids is None else where.gather(1, like.ids))
