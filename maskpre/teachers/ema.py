"""A teacher that is an average of the student's own past."""

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

from torch import nn

from maskpre.nearest import did_you_mean
from maskpre.ops.average import average_module
from maskpre.passes import Network
from maskpre.predictors.base import Predictor
from maskpre.teachers.decay import Decay


class EmaTeacher(nn.Module):
    """An exponential moving average of the student's encoder and of its `predictors` (None: all of them).

    Starts as a copy, moves after every optimiser step, with all buffers, and computes as in evaluation.
    It is saved and resumed with the model; it has no gradients and no share in the optimiser.

    Raises ValueError if the student has no predictor of a name.
    """

    def __init__(self, *, student: Network, decay: Decay, predictors: Sequence[str] | None = None) -> None:
        super().__init__()
        chosen = list(student.predictors) if predictors is None else list(predictors)
        for name in chosen:
            if name not in student.predictors:
                known = ", ".join(student.predictors)
                hint = did_you_mean(name, student.predictors)
                raise ValueError(f"there is no predictor {name!r} to average, only {known}{hint}")
        self.decay = decay
        self.encoder = deepcopy(student.encoder)
        self.predictors = nn.ModuleDict({name: deepcopy(student.predictors[name]) for name in chosen})
        self.requires_grad_(False)
        self.train(False)

    @property
    def network(self) -> Network:
        """What a pass runs."""
        return Network(self.encoder, cast(dict[str, Predictor], self.predictors))

    def train(self, mode: bool = True) -> "EmaTeacher":
        """Stay in evaluation mode."""
        return super().train(False)

    def restart(self, student: Network) -> None:
        """Become a copy of the student."""
        self._move(student, decay=0.0)

    def update(self, student: Network, progress: float) -> None:
        """Move towards the student after the step before which the share `progress` was done."""
        self._move(student, self.decay(progress))

    def _move(self, student: Network, decay: float) -> None:
        average_module(self.encoder, student.encoder, decay)
        for name, predictor in self.predictors.items():
            average_module(predictor, student.predictors[name], decay)
