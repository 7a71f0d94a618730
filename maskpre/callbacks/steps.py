"""What callbacks that act between optimiser steps have in common."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor


def completes_epochs(trainer: Trainer, every_epochs: float | None) -> bool:
    """Whether the step just taken completes another `every_epochs` passes over the data; None never does."""
    if every_epochs is None:
        return False
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    period, step = every_epochs * data.steps_per_epoch, trainer.global_step
    return bool(step // period > (step - 1) // period)


class StepCallback(Callback):
    """Calls `on_step_end` once per optimiser step, however many micro-batches the step has."""

    _last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where the run is."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Tell the end of an optimiser step."""
        if trainer.global_step != self._last_step:
            self._last_step = trainer.global_step
            self.on_step_end(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An optimiser step has just been completed."""
