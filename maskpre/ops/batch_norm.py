"""Batch norm over given rows, with statistics of this rank or of all ranks."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from maskpre.ops.ranks import num_ranks

Statistics = Literal["rank", "world"]


def check_statistics(statistics: str) -> None:
    """Raise ValueError for a word that is neither "rank" nor "world"."""
    if statistics not in ("rank", "world"):
        raise ValueError(f"statistics must be 'rank' or 'world', got {statistics!r}")


def normalise_rows(
    layer: nn.Module,
    x: Float[Tensor, "n c ..."],
    *,
    statistics: Statistics,
    again: bool = False,
) -> Float[Tensor, "n c ..."]:
    """What the batch norm `layer` makes of x, every position of which counts as one row.

    In training, "world" takes mean and variance over the rows of all ranks, of which each must have as many,
    and keeps running values of those. `again` says that these rows were seen before (a recomputed forward):
    running values stay as they are then. A norm that holds an activation applies it.
    """
    assert isinstance(layer, _BatchNorm)
    if not layer.training:
        evaluated: Tensor = layer(x)
        return evaluated
    if statistics == "world" and num_ranks() > 1:
        mean, variance = _world_moments(x)
        if not again:
            _update_running(
                layer, mean.detach(), variance.detach(), rows=num_ranks() * x.numel() // x.shape[1]
            )
        return _activate(layer, _affine(layer, x, mean, variance))
    if again:
        return _activate(layer, _without_trace(layer, x))
    normed: Tensor = layer(x)
    return normed


def _without_trace(layer: _BatchNorm, x: Tensor) -> Tensor:
    """The norm of a training step that leaves the running values alone.

    It works on copies of them: recomputation must save as many tensors as the first forward did.
    """
    mean, variance = layer.running_mean, layer.running_var
    copies = (None if mean is None else mean.clone(), None if variance is None else variance.clone())
    return batch_norm(x, *copies, layer.weight, layer.bias, True, 0.0, layer.eps)


def _world_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel over all ranks' rows, differentiable through the exchange."""
    dims = [0, *range(2, x.dim())]
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = all_reduce(wide.mean(dim=dims)) / num_ranks()
    centred = wide - mean.view(1, -1, *[1] * (x.dim() - 2))
    return mean, all_reduce(centred.square().mean(dim=dims)) / num_ranks()


def _affine(layer: _BatchNorm, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Normalise with given moments, through which gradients flow."""
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
    shape = (1, -1, *[1] * (x.dim() - 2))
    return (x * scale.view(shape) + shift.view(shape)).to(x.dtype)


def _update_running(layer: _BatchNorm, mean: Tensor, variance: Tensor, *, rows: int) -> None:
    if not layer.track_running_stats or layer.running_mean is None or layer.running_var is None:
        return
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    share: Tensor | float
    share = 1.0 / layer.num_batches_tracked if layer.momentum is None else layer.momentum
    unbiased = variance * (rows / (rows - 1))
    layer.running_mean.copy_(layer.running_mean + share * (mean - layer.running_mean))
    layer.running_var.copy_(layer.running_var + share * (unbiased - layer.running_var))


def _activate(layer: nn.Module, x: Tensor) -> Tensor:
    """Drop-out and activation that timm's norms carry behind themselves."""
    for name in ("drop", "act"):
        part = getattr(layer, name, None)
        x = x if part is None else part(x)
    return x
