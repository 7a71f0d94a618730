"""Probes of the encoder while it is being pretrained."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer

from maskpre.callbacks.meter import log_metrics
from maskpre.callbacks.steps import StepCallback, completes_epochs
from maskpre.evaluation.base import Probe
from maskpre.evaluation.features import Features, Pool, extract
from maskpre.parallel.gather import gathered

log = logging.getLogger(__name__)


class OnlineProbe(StepCallback):
    """Judges the frozen encoder before the first step, every `every_epochs` epochs and at the end.

    `probes` by name are fitted on at most `max_train` training pictures (none augmented) and scored on at
    most `max_test` of the val split. The untrained encoder's results are kept in the checkpoint, so that
    every later one has something to be compared with. Data without labels or val split are not probed.
    """

    def __init__(
        self,
        *,
        probes: Mapping[str, Probe],
        every_epochs: float | None = None,
        max_train: int = 10000,
        max_test: int = 4000,
        batch_size: int = 256,
    ) -> None:
        self.probes = dict(probes)
        self.every_epochs, self.batch_size = every_epochs, batch_size
        self.max_train, self.max_test = max_train, max_test
        self.untrained: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self.latest_step: int | None = None
        self.seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The untrained encoder's results."""
        return {"untrained": self.untrained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was measured before the first step."""
        self.untrained = state_dict["untrained"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the encoder as it was initialised."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step == 0:
            self.untrained = self._probe(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe when another `every_epochs` are complete."""
        if completes_epochs(trainer, self.every_epochs) and trainer.global_step < trainer.max_steps:
            self._probe(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the final encoder."""
        if trainer.global_step >= trainer.max_steps:
            self._probe(trainer, pl_module)

    def _probe(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not data.has_labels:
            return {}
        self.latest_step = trainer.global_step
        model: Any = pl_module.model
        with gathered(model.encoder):
            return self._judge(trainer, pl_module) if trainer.is_global_zero else {}

    def _judge(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Fit and score all probes, on the first rank; the others wait at their next exchange."""
        start = time.monotonic()
        pools = {probe.pool for probe in self.probes.values()}
        features = {pool: self._features(trainer, pl_module, pool) for pool in pools}
        self.latest = {name: probe(*features[probe.pool]).top1 for name, probe in self.probes.items()}
        self.seconds += time.monotonic() - start
        log_metrics(trainer, {f"probe/{name}": value for name, value in self.latest.items()})
        return self.latest

    def _features(
        self, trainer: Trainer, pl_module: LightningModule, pool: Pool
    ) -> tuple[Features, Features]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        model: Any = pl_module.model
        train, test = (
            extract(
                model.encoder,
                data.eval_loader(split, batch_size=self.batch_size, limit=limit),
                pool=pool,
                device=pl_module.device,
                normalize=model.inputs.normalize,
            )
            for split, limit in (("train", self.max_train), ("val", self.max_test))
        )
        return train, test
