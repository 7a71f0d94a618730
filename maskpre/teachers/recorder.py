"""Running the passes of frozen teachers outside a training step, and what their results depend on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from maskpre.data.dataset import Batch
from maskpre.data.picture_data import PictureData
from maskpre.data.records import Column, Precision
from maskpre.encoders.base import Encoder
from maskpre.model import MaskedModel
from maskpre.ops.noise import KeyedNoise
from maskpre.teachers.frozen import FrozenTeacher
from maskpre.teachers.recording import Recording
from maskpre.types import Step

FORMAT = 1
"""Raised when the same configuration gives other results than before."""

# Entries of the data's configuration that change no crop.
_BESIDE_THE_POINT = frozenset(
    {
        "batch_size",
        "cache",
        "cache_dir",
        "eval_transform",
        "num_val",
        "num_workers",
        "on_error",
        "shuffle",
        "val_root",
        "val_shards",
    }
)


def frozen_passes(model: MaskedModel) -> dict[str, Recording]:
    """The passes that run a frozen teacher, and how what is read of them is recorded."""
    return {
        name: Recording(name, model.teachers[run.network].spec, model.taps[name])
        for name, run in model.passes.items()
        if run.network in model.teachers
    }


def run_teachers(model: MaskedModel, batch: Batch) -> dict[str, Tensor]:
    """What the passes of frozen teachers give for a batch, as the entries of their recordings."""
    noise = KeyedNoise(0, batch["epoch"], batch["index"])
    step = Step(batch=batch, views=model.inputs(batch), noise=noise, progress=0.0)
    made: dict[str, Tensor] = {}
    for name, recording in frozen_passes(model).items():
        model.passes[name](name, step, networks=model.networks, maskings={}, taps=model.taps[name])
        made |= recording.pack(step.outputs[name])
    return made


def formats_of(model: MaskedModel, precision: Precision) -> dict[str, Precision]:
    """How the entries of a model's recordings are kept."""
    formats: dict[str, Precision] = {}
    for recording in frozen_passes(model).values():
        formats |= recording.formats(precision)
    return formats


@dataclass(frozen=True)
class Recorder:
    """Runs a model's frozen teachers on crops of its data; they are moved to `device`."""

    model: MaskedModel
    data: PictureData
    device: torch.device

    def __post_init__(self) -> None:
        self.model.inputs.to(self.device)
        for teacher in self.model.teachers.values():
            teacher.to(self.device)

    @torch.no_grad()
    def record(self, batch: Batch) -> dict[str, Tensor]:
        """What the teachers' passes give for a batch, as the entries of their recordings."""
        return run_teachers(self.model, {name: value.to(self.device) for name, value in batch.items()})

    def crops(self, crop: int, samples: Sequence[int]) -> Batch:
        """One crop of a few samples, those that can be read, as one batch."""
        return next(iter(self.data.crop_loader(crop=crop, samples=samples, batch_size=len(samples))))

    def columns(self, precision: Precision) -> dict[str, Column]:
        """What a row holds."""
        kept = formats_of(self.model, precision)
        made = self.record(self.crops(0, range(min(8, len(self.data.source("train"))))))
        return {name: Column(tuple(value.shape[1:]), kept[name]) for name, value in made.items()}


def identity(cfg: DictConfig, model: MaskedModel, data: PictureData) -> dict[str, Any]:
    """All that the results for a data set's crops depend on."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    source, keys = data.source("train"), hashlib.sha256()
    for index in range(len(source)):
        keys.update(source.key(index).encode("utf-8", "surrogateescape") + b"\n")
    passes = {}
    for name, recording in frozen_passes(model).items():
        run = model.passes[name]
        settings = plain["teachers"][run.network]
        passes[name] = {
            "view": run.view,
            "entries": list(recording.names),
            "teacher": {key: value for key, value in settings.items() if key != "weights"},
            "weights": weights_digest(model.teachers[run.network]),
        }
    return {
        "format": FORMAT,
        "passes": passes,
        "inputs": plain["inputs"],
        "data": {name: value for name, value in plain["data"].items() if name not in _BESIDE_THE_POINT},
        "samples": {"number": len(source), "keys": keys.hexdigest()},
    }


def weights_digest(teacher: Encoder) -> str:
    """Depends on every weight and on its name."""
    state = teacher.held_state() if isinstance(teacher, FrozenTeacher) else teacher.state_dict()
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
