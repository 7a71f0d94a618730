"""What every loss is: a number for the batch and one per token."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.ops.ranks import mean_over_ranks


class LossTerm(NamedTuple):
    """The value to minimise, and the map it came from (before weights and reduction).

    `metrics` are further numbers to be logged, by name.
    """

    value: Float[Tensor, ""]
    per_token: Float[Tensor, "b n"]
    metrics: Mapping[str, Float[Tensor, ""]] = MappingProxyType({})


def region_mean(errors: Float[Tensor, "b n k"], weight: Float[Tensor, "b n #k"] | None) -> LossTerm:
    """Mean over a token's values, then the weighted mean over all tokens of the global batch, in one."""
    per_token = errors.mean(dim=-1)
    if weight is None:
        return LossTerm(per_token.mean(), per_token)
    if weight.shape[-1] == 1:
        return LossTerm((per_token * weight[..., 0]).sum() / mean_over_ranks(weight.sum()), per_token)
    return LossTerm((errors * weight).sum() / mean_over_ranks(weight.sum()), per_token)


class Loss(nn.Module, ABC):
    """Compares predictions with targets; the reduction is the published one of the system it is named for.

    Where it divides by what it counts, the count is that of the global batch: the mean over ranks is the
    value that one rank would have got.
    `in_chans` is the number of channels per pixel where the loss counts pixels, None where it does not.
    `of_scores` says that it compares scores with clusters, not values.
    """

    in_chans: int | None = None
    of_scores: bool = False

    @abstractmethod
    def forward(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        weight: Float[Tensor, "b n #k"] | None,
    ) -> LossTerm:
        """Reduce over the region. `weight` is 1 (or a share) inside it, 0 outside, per token or per value;
        None means that every token given counts fully.
        """
