"""The loop every system goes through. It knows no system."""

from collections.abc import Mapping, MutableMapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from maskpre.encoders.base import Encoder
from maskpre.masking.base import Masking
from maskpre.objectives import Objective, Outcome
from maskpre.passes import Network, Pass
from maskpre.predictors.base import Predictor
from maskpre.reading import needed_for
from maskpre.targets.base import Target
from maskpre.teachers.ema import EmaTeacher
from maskpre.teachers.recording import Recording
from maskpre.types import Noise, Step, Taps

M = TypeVar("M", bound=nn.Module)


def _registered(modules: Mapping[str, M]) -> MutableMapping[str, M]:
    """The same mapping as a module, so that what it holds moves and saves with the model."""
    return cast(MutableMapping[str, M], nn.ModuleDict(modules))


class MaskedModel(nn.Module):
    """Views, passes, objectives, and their weighted sum.

    `encoder` and `predictors` are the student, which passes call "encoder"; `teachers` are frozen networks by
    name, `averages` slow copies of the student. Passes and objectives run in the order given; `taps` says
    what is read of each pass. A pass whose output a batch brings along, as `recordings` tell, is not run.
    """

    def __init__(
        self,
        *,
        inputs: nn.Module,
        encoder: Encoder,
        maskings: Mapping[str, Masking],
        predictors: Mapping[str, Predictor],
        targets: Mapping[str, Target],
        passes: Mapping[str, Pass],
        objectives: Mapping[str, Objective],
        taps: Mapping[str, Taps],
        teachers: Mapping[str, Encoder] | None = None,
        averages: Mapping[str, EmaTeacher] | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self.encoder = inputs, encoder
        self.maskings, self.predictors = _registered(maskings), _registered(predictors)
        self.targets, self.objectives = _registered(targets), _registered(objectives)
        self.teachers, self.averages = _registered(teachers or {}), _registered(averages or {})
        self.passes, self.taps = dict(passes), dict(taps)
        self.recordings: dict[str, Recording] = {}

    @property
    def student(self) -> Network:
        """What is trained."""
        return Network(self.encoder, self.predictors)

    @property
    def networks(self) -> dict[str, Network]:
        """Everything a pass can run, by name."""
        frozen = {name: Network(teacher) for name, teacher in self.teachers.items()}
        return {"encoder": self.student, **frozen, **{n: a.network for n, a in self.averages.items()}}

    def keep(self, objective: str) -> None:
        """Forget all objectives but this one, and the passes and frozen teachers that it doesn't need."""
        self.objectives = _registered({objective: self.objectives[objective]})
        kept = self.objectives[objective]
        wanted = [kept.plan, *self.targets[kept.target].taps]
        self.passes = needed_for(wanted, self.passes, self.maskings)
        networks = {run.network for run in self.passes.values()}
        self.teachers = _registered({n: t for n, t in self.teachers.items() if n in networks})

    def forward(self, batch: dict[str, Tensor], *, noise: Noise, progress: float) -> Step:
        """One step: the returned record holds the total loss and all that led to it."""
        step = Step(batch=batch, views=self.inputs(batch), noise=noise, progress=progress)
        for name, run in self.passes.items():
            recording = self.recordings.get(name)
            if recording is not None and recording.is_in(batch):
                step.outputs[name] = recording.unpack(batch)
                continue
            run(name, step, networks=self.networks, maskings=self.maskings, taps=self.taps[name])
        for name, objective in self.objectives.items():
            outcome: Outcome = objective(step, self.targets[objective.target])
            step.losses[name], step.loss_maps[name], step.metrics[name] = outcome
        weighted = [self.objectives[name].weight * loss for name, loss in step.losses.items()]
        step.total = torch.stack(weighted).sum()
        return step

    def after_step(self, progress: float) -> None:
        """What follows an optimiser step, before which the share `progress` of the training was done."""
        for average in self.averages.values():
            average.update(self.student, progress)
        for target in self.targets.values():
            target.after_step()
