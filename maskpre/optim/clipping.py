"""Gradient clipping for Lightning modules."""

import torch
from lightning import LightningModule
from torch.optim import Optimizer


def clip_gradients(
    module: LightningModule, optimizer: Optimizer, limit: float | None, algorithm: str | None
) -> None:
    """Clip as `trainer.gradient_clip_val` and `gradient_clip_algorithm` ask ("norm" if not given).

    Lightning refuses a fused optimiser under any mixed precision, but only float16's scaled gradients can't
    be clipped before it: under bfloat16 they are clipped here.
    """
    if not limit or module.trainer.precision != "bf16-mixed":
        module.clip_gradients(optimizer, limit, algorithm)
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if algorithm == "value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    else:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
