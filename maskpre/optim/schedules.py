"""Learning rates and weight decays as closed functions of the step, so that resuming cannot shift them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from maskpre.errors import UserError
from maskpre.optim.formulas import (
    chained_cosine,
    floored_cosine,
    multi_step,
    overlapping_cosine,
    warmup_cosine,
)

LrCurve = Callable[..., float]
"""`curve(step, layer_scale=1.0)`: the learning rate of a group with that layer scale at a step from 0."""


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
