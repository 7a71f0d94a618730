"""Learning rates as closed functions of the optimiser step, so that resuming cannot shift them."""

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.optim.lr_scheduler import LambdaLR

from maskpre.errors import UserError

LrCurve = Callable[..., float]
"""`curve(step, layer_scale=1.0)`: the learning rate of a group with that layer scale at a step from 0."""


def warmup_cosine(epoch: float, *, peak: float, min_lr: float, warmup_epochs: float, epochs: float) -> float:
    """MAE's rule: linear from 0 over the warm-up, then half a cosine over the remaining epochs.

    `epoch` is fractional and counts from 0.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    angle = math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)
    return min_lr + (peak - min_lr) * 0.5 * (1.0 + math.cos(angle))


def chained_cosine(
    step: int, *, peak: float, min_lr: float, warmup_factor: float, warmup_steps: int, total_steps: int
) -> float:
    """The LinearLR of mmengine followed by CosineAnnealingLR, both counted in iterations.

    The linear part reaches the peak one step before it ends, so two steps run at the peak.
    """
    if step < warmup_steps:
        progress = step / max(warmup_steps - 1, 1)
        return peak * (warmup_factor + (1.0 - warmup_factor) * progress)
    angle = math.pi * (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (peak - min_lr) * 0.5 * (1.0 + math.cos(angle))


def overlapping_cosine(
    t: int, *, peak: float, min_lr: float, warmup_lr: float, warmup_steps: int, total_steps: int
) -> float:
    """Cosine of timm without `warmup_prefix`: the curve starts at t = 0 and is joined after the warm-up."""
    if t < warmup_steps:
        return warmup_lr + t * ((peak - warmup_lr) / warmup_steps)
    if t >= total_steps:
        return min_lr
    return min_lr + 0.5 * (peak - min_lr) * (1.0 + math.cos(math.pi * t / total_steps))


def multi_step(
    t: int, *, peak: float, gamma: float, milestones: Sequence[float], warmup_lr: float, warmup_steps: int
) -> float:
    """Linear warm-up, then the peak times `gamma` for each milestone (in steps) that `t` has reached."""
    if t < warmup_steps:
        return warmup_lr + t * ((peak - warmup_lr) / warmup_steps)
    return peak * gamma ** bisect.bisect_right(milestones, t)


@dataclass(frozen=True, kw_only=True)
class LrRun:
    """What a schedule needs to know of a run.

    `peak` is the base rate times `batch_ratio` (effective batch over reference batch);
    `steps_per_epoch` counts optimiser steps.
    """

    peak: float
    batch_ratio: float
    total_steps: int
    steps_per_epoch: float

    @property
    def epochs(self) -> float:
        """Length of the run in (fractional) epochs."""
        return self.total_steps / self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """A published rule for the learning rate; `bind` it to a run to get the curve."""

    warmup_epochs: float

    @abstractmethod
    def lr(self, step: int, layer_scale: float = 1.0, *, run: LrRun) -> float:
        """Learning rate at optimiser step `step` (from 0) of a group with layer-wise scale `layer_scale`."""

    def bind(self, run: LrRun) -> LrCurve:
        """The curve for one run. Raises UserError if the warm-up does not end within the run."""
        if not 0 <= self.warmup_epochs < run.epochs:
            raise UserError(
                f"warmup_epochs ({self.warmup_epochs}) must be at least 0 and less than "
                f"the epochs of the run ({run.epochs:g})"
            )
        return partial(self.lr, run=run)


@dataclass(frozen=True, kw_only=True)
class WarmupCosine(Schedule):
    """MAE's schedule, evaluated at the fractional epoch; a layer's scale multiplies the whole curve."""

    min_lr: float = 0.0

    def lr(self, step: int, layer_scale: float = 1.0, *, run: LrRun) -> float:
        """See `warmup_cosine`; `min_lr` is absolute and does not grow with the batch."""
        return layer_scale * warmup_cosine(
            step / run.steps_per_epoch,
            peak=run.peak,
            min_lr=self.min_lr,
            warmup_epochs=self.warmup_epochs,
            epochs=run.epochs,
        )


@dataclass(frozen=True, kw_only=True)
class ChainedCosine(Schedule):
    """mmpretrain's schedule (ColorMAE): warm-up from `warmup_factor` times the peak, then cosine."""

    warmup_factor: float = 1e-4
    min_lr: float = 0.0

    def lr(self, step: int, layer_scale: float = 1.0, *, run: LrRun) -> float:
        """See `chained_cosine`; a layer's scale multiplies the peak, not `min_lr`."""
        return chained_cosine(
            step,
            peak=run.peak * layer_scale,
            min_lr=self.min_lr,
            warmup_factor=self.warmup_factor,
            warmup_steps=int(self.warmup_epochs * run.steps_per_epoch),
            total_steps=run.total_steps,
        )


@dataclass(frozen=True, kw_only=True)
class OverlappingCosine(Schedule):
    """SimMIM's cosine: warm-up and floor grow with the batch like the peak, and the rate lags one step.

    The official scheduler is stepped with the current index after the optimiser, so step k runs at the
    value of k - 1.
    """

    warmup_lr: float
    min_lr: float

    def lr(self, step: int, layer_scale: float = 1.0, *, run: LrRun) -> float:
        """See `overlapping_cosine`; a layer's scale multiplies the peak only."""
        return overlapping_cosine(
            max(step - 1, 0),
            peak=run.peak * layer_scale,
            min_lr=self.min_lr * run.batch_ratio,
            warmup_lr=self.warmup_lr * run.batch_ratio,
            warmup_steps=int(self.warmup_epochs * run.steps_per_epoch),
            total_steps=run.total_steps,
        )


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """SimMIM's 800-epoch schedule: warm-up, then `gamma` at each milestone (in epochs); lags one step."""

    warmup_lr: float
    milestones: Sequence[float]
    gamma: float = 0.1

    def lr(self, step: int, layer_scale: float = 1.0, *, run: LrRun) -> float:
        """See `multi_step`; a layer's scale multiplies the peak only."""
        return multi_step(
            max(step - 1, 0),
            peak=run.peak * layer_scale,
            gamma=self.gamma,
            milestones=[epoch * run.steps_per_epoch for epoch in self.milestones],
            warmup_lr=self.warmup_lr * run.batch_ratio,
            warmup_steps=int(self.warmup_epochs * run.steps_per_epoch),
        )


def lambda_lr(optimizer: torch.optim.Optimizer, curve: LrCurve) -> LambdaLR:
    """Torch's scheduler that follows `curve` in every group; step it once per optimiser step.

    Groups carry their peak in `lr` and their layer-wise scale in `lr_scale` (1 when absent). Nothing of the
    curve is stored in the scheduler's state, only the step.
    """

    def factor(peak: float, layer_scale: float) -> Callable[[int], float]:
        return lambda step: curve(step, layer_scale) / peak

    return LambdaLR(
        optimizer, [factor(group["lr"], group.get("lr_scale", 1.0)) for group in optimizer.param_groups]
    )
