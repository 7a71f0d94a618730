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


def floored_cosine(
    step: int, *, peak: float, start: float, end: float, warmup_steps: int, total_steps: int
) -> float:
    """Linear from `start` to the peak over the warm-up, then half a cosine to `end` in the last step."""
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1)
    return end + (peak - end) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


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
class LinspaceCosine(Schedule):
    """VideoMAE's schedule (BEiT's): evenly spaced rates from 0 to the peak, both included, then the cosine.

    The floor grows with the batch like the peak.
    """

    min_lr: float = 0.0

    def lr(self, step: int, layer_scale: float = 1.0, *, run: LrRun) -> float:
        """See `chained_cosine`; a layer's scale multiplies the whole curve."""
        return layer_scale * chained_cosine(
            step,
            peak=run.peak,
            min_lr=self.min_lr * run.batch_ratio,
            warmup_factor=0.0,
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


@dataclass(frozen=True, kw_only=True)
class FlooredCosine(Schedule):
    """SparK's schedule: warm-up from and cosine down to shares of the peak, counted in optimiser steps."""

    warmup_factor: float = 0.005
    final_factor: float = 0.001

    def lr(self, step: int, layer_scale: float = 1.0, *, run: LrRun) -> float:
        """See `floored_cosine`; a layer's scale multiplies the whole curve."""
        return layer_scale * floored_cosine(
            step,
            peak=run.peak,
            start=self.warmup_factor * run.peak,
            end=self.final_factor * run.peak,
            warmup_steps=round(self.warmup_epochs * run.steps_per_epoch),
            total_steps=run.total_steps,
        )


DecayCurve = Callable[[int], float]
"""`curve(step)`: the weight decay, at a step from 0, of groups that decay."""


@dataclass(frozen=True, kw_only=True)
class CosineDecay:
    """Weight decay that moves from the recipe's to `end` over the run, along half a cosine."""

    end: float

    def __post_init__(self) -> None:
        if self.end < 0:
            raise UserError(f"the weight decay at the end ({self.end}) must be at least 0")

    def bind(self, run: LrRun, *, start: float) -> DecayCurve:
        """The curve for one run that starts at `start`."""
        return partial(
            floored_cosine, peak=start, start=start, end=self.end, warmup_steps=0, total_steps=run.total_steps
        )


@dataclass(frozen=True, kw_only=True)
class Curves:
    """How an optimiser's groups move: the learning rate, and the weight decay if that moves too."""

    lr: LrCurve
    weight_decay: DecayCurve | None = None

    def __call__(self, step: int, layer_scale: float = 1.0) -> float:
        """The learning rate; see `LrCurve`."""
        return self.lr(step, layer_scale)


class _CurvesLR(LambdaLR):
    """Sets the weight decay of decaying groups beside the learning rate."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, factors: list[Callable[[int], float]], decay: DecayCurve
    ):
        self._decay = decay
        self._decaying = [group["weight_decay"] > 0 for group in optimizer.param_groups]
        super().__init__(optimizer, factors)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rates of this step; the weight decay is set on the way."""
        for group, decays in zip(self.optimizer.param_groups, self._decaying, strict=True):
            if decays:
                group["weight_decay"] = self._decay(self.last_epoch)
        return super().get_lr()

    def state_dict(self) -> dict[str, object]:
        """The step alone: curves are rebuilt from the configuration."""
        own = ("_decay", "_decaying")
        return {key: value for key, value in super().state_dict().items() if key not in own}


def lambda_lr(optimizer: torch.optim.Optimizer, curve: Curves | LrCurve) -> LambdaLR:
    """Torch's scheduler that follows `curve` in every group; step it once per optimiser step.

    Groups carry their peak in `lr` and their layer-wise scale in `lr_scale` (1 when absent). Nothing of the
    curve is stored in the scheduler's state, only the step.
    """

    def factor(peak: float, layer_scale: float) -> Callable[[int], float]:
        return lambda step: curve(step, layer_scale) / peak

    factors = [factor(group["lr"], group.get("lr_scale", 1.0)) for group in optimizer.param_groups]
    if isinstance(curve, Curves) and curve.weight_decay is not None:
        return _CurvesLR(optimizer, factors, curve.weight_decay)
    return LambdaLR(optimizer, factors)
