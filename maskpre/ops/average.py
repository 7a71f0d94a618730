"""Exponential moving averages, the arithmetic."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskpre.ops.ranks import local_share


@torch.no_grad()
def average_tensors(averages: Sequence[Tensor], current: Sequence[Tensor], decay: float) -> None:
    """In place: average = decay * average + (1 - decay) * current; what doesn't float is copied.

    Of tensors divided among ranks, in the same way, each rank averages its share.
    Written as a step towards the current value, so that an average that is equal stays exactly equal.
    """
    pairs = list(zip(map(local_share, averages), map(local_share, current), strict=True))
    floating = [(average, value) for average, value in pairs if average.is_floating_point()]
    if floating:
        moved, goals = zip(*floating, strict=True)
        torch._foreach_lerp_(moved, goals, 1 - decay)
    for average, value in pairs:
        if not average.is_floating_point():
            average.copy_(value)


def average_module(average: nn.Module, current: nn.Module, decay: float) -> None:
    """`average_tensors` over all parameters and buffers of two modules of the same kind."""
    average_tensors(
        [*average.parameters(), *average.buffers()], [*current.parameters(), *current.buffers()], decay
    )
