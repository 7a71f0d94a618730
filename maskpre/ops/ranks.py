"""Numbers shared by all ranks of a run; with one rank, or outside a run, everything stays as it is."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor


def num_ranks() -> int:
    """Processes that share a global batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def local_share(tensor: Tensor) -> Tensor:
    """What of a tensor that is divided among ranks lies here; other tensors as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be divided among ranks, which then must all call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def mean_over_ranks(value: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The mean of what every rank holds, without gradient; all ranks must call it.

    As a loss's denominator it makes the mean of the ranks' losses, whose gradient training follows, the
    ratio over the global batch, also where ranks count differently.
    """
    if num_ranks() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / num_ranks()
