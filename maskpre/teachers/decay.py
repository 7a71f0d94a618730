"""Decays of averaged weights as closed functions of the progress, so that resuming cannot shift them."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from maskpre.ops.progress import epoch_of


class Decay(ABC):
    """How much of an average is kept in a step: average = decay * average + (1 - decay) * weight."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The decay in [0, 1] of the step before which the share `progress` of the training was done."""


def _check(**decays: float) -> None:
    for name, value in decays.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be a decay between 0 and 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class RampDecay(Decay):
    """From `start` at the first step to `end` after the last, for every step.

    "linear" is I-JEPA's (Assran et al. 2023; `end` 1), "cosine" that of BYOL, DINO and FSFM:
    end - (end - start) * (1 + cos(pi * progress)) / 2.
    """

    start: float = 0.996
    end: float = 1.0
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        _check(start=self.start, end=self.end)

    def __call__(self, progress: float) -> float:
        """See `Decay.__call__`."""
        done = progress if self.shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return self.start + done * (self.end - self.start)


@dataclass(frozen=True, kw_only=True)
class EpochRampDecay(Decay):
    """HPM's (Wang et al., CVPR 2023): start + epoch / ramp_epochs * (end - start), then `end`.

    It changes at the beginning of each of the `epochs` of the whole training only.
    """

    epochs: float
    start: float = 0.999
    end: float = 0.9999
    ramp_epochs: int = 100

    def __post_init__(self) -> None:
        _check(start=self.start, end=self.end)
        if self.ramp_epochs < 1:
            raise ValueError(f"ramp_epochs must be at least 1, got {self.ramp_epochs}")

    def __call__(self, progress: float) -> float:
        """See `Decay.__call__`."""
        epoch = epoch_of(progress, self.epochs)
        if epoch >= self.ramp_epochs:
            return self.end
        return self.start + epoch / self.ramp_epochs * (self.end - self.start)
