"""Optimal transport of tokens to clusters of equal size."""

from typing import Literal, Protocol

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


class Reduce(Protocol):
    """Combines the tensors that all ranks give, element by element; every rank gets the result."""

    def __call__(self, values: Tensor, operation: Literal["sum", "max"]) -> Tensor:
        """The sum or maximum over the ranks."""
        ...


def over_ranks(values: Tensor, operation: Literal["sum", "max"]) -> Tensor:
    """`Reduce` over the ranks of the running job; of a single process, its own values."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    values = values.clone()
    dist.all_reduce(values, op=dist.ReduceOp.SUM if operation == "sum" else dist.ReduceOp.MAX)
    return values


def within_rank(values: Tensor, operation: Literal["sum", "max"]) -> Tensor:
    """`Reduce` that takes this rank for the only one."""
    return values


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "n k"],
    *,
    eps: float,
    iterations: int,
    weight: Float[Tensor, "n"] | None = None,
    reduce: Reduce = over_ranks,
) -> Float[Tensor, "n k"]:
    """Soft assignments of n tokens to k clusters, by Sinkhorn's and Knopp's iterations; rows sum to 1.

    Starts from exp(scores / eps). Each iteration gives all clusters the same mass, over the tokens of all
    ranks, and then every token the mass `weight` (None: the same for all; 0 leaves a token out, which still
    gets a row). The result is float32 (SIGMA, Salehi et al., arXiv 2407.15447; the iterations are those of
    SwAV, Caron et al., arXiv 2006.09882). No score is too large.
    """
    logits = scores.to(torch.promote_types(scores.dtype, torch.float32)) / eps
    mass = logits.new_ones(len(logits)) if weight is None else weight.to(logits.dtype)
    if iterations == 0:
        return logits.softmax(dim=1).float()
    # The first iteration with logarithms. After it no cluster has less than 1 / k of what it should have, so
    # that nothing can be divided by 0.
    logits -= _log_sum(torch.logsumexp(logits + mass.log()[:, None], dim=0), reduce)
    shares = logits.softmax(dim=1)
    # Products are what autocast would compute in half precision.
    with torch.autocast(scores.device.type, enabled=False):
        for _ in range(iterations - 1):
            shares /= reduce(mass @ shares, "sum")
            shares /= shares.sum(dim=1, keepdim=True)
    return shares.float()


def _log_sum(logs: Float[Tensor, "k"], reduce: Reduce) -> Float[Tensor, "k"]:
    """The logarithm of the sum over ranks of numbers of which every rank has the logarithm."""
    largest = reduce(logs, "max")
    return largest + reduce((logs - largest).exp(), "sum").log()
