"""What is measured in every run: loss, learning rate, gradient norm, speed, waiting, samples seen."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from maskpre.ops.ranks import mean_over_ranks, whole


class Meter(Callback):
    """Measures each optimiser step and logs every `trainer.log_every_n_steps`.

    Logged: each loss term and their sum, of the step itself over the global batch, what else losses measure,
    `lr`, `grad_norm` (before clipping), `images_per_second` and `data_wait` (share of time the loop waits for
    data) since the last log, and `samples` seen. Values are read from the device only when they are logged.
    """

    def __init__(self) -> None:
        self.losses: dict[str, Tensor] = {}
        self.measured: dict[str, Tensor] = {}
        self.images = 0
        self.waited = self.elapsed = 0.0
        self._mark = time.monotonic()
        self._logged: tuple[float, float, int] = (0.0, 0.0, 0)
        self._grad_norm: Tensor | None = None
        self._last_step = 0

    @property
    def images_per_second(self) -> float:
        """Mean speed of this process's run so far, over all ranks."""
        return self.images / self.elapsed if self.elapsed else 0.0

    @property
    def data_wait(self) -> float:
        """Share of time spent waiting for data so far, in [0, 1]."""
        return self.waited / self.elapsed if self.elapsed else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a resumed run counts from its own start."""
        self._mark = time.monotonic()
        self._last_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """What passed since the last step ended was waiting for data."""
        waited = self._lap()
        self.waited += waited

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """The gradient norm, on the steps that will be logged."""
        if (trainer.global_step + 1) % log_period(trainer) == 0:
            grads = [
                p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
            ]
            self._grad_norm = whole(torch.nn.utils.get_total_norm(grads))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Count, and log when a logged step is complete."""
        terms = outputs["step"].losses if "step" in outputs else {}
        found = outputs["step"].metrics if "step" in outputs else {}
        # Lightning hands over the loss as it was differentiated: a share of the accumulated step.
        loss = outputs["loss"].detach() * trainer.accumulate_grad_batches
        self.losses = {"loss": loss} | {f"loss/{name}": term.detach() for name, term in terms.items()}
        self.measured = {
            f"{name}/{what}": value.detach()
            for name, all_of in found.items()
            for what, value in all_of.items()
        }
        self.images += len(batch["index"]) * trainer.world_size
        self._lap()
        due = trainer.global_step % log_period(trainer) == 0
        if due and trainer.global_step != self._last_step:
            self._log(trainer)
        self._last_step = trainer.global_step

    def _lap(self) -> float:
        now = time.monotonic()
        lap, self._mark = now - self._mark, now
        self.elapsed += lap
        return lap

    def _log(self, trainer: Trainer) -> None:
        elapsed, waited, images = self._logged
        self._logged = (self.elapsed, self.waited, self.images)
        measured = {**self.losses, **self.measured}
        values = mean_over_ranks(torch.stack([value.double() for value in measured.values()])).tolist()
        metrics = {f"train/{name}": value for name, value in zip(measured, values, strict=True)}
        if self._grad_norm is not None:
            metrics["train/grad_norm"] = self._grad_norm.item()
        metrics["train/lr"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        metrics["time/images_per_second"] = (self.images - images) / (self.elapsed - elapsed)
        metrics["time/data_wait"] = (self.waited - waited) / (self.elapsed - elapsed)
        log_metrics(trainer, metrics)


def log_period(trainer: Trainer) -> int:
    """Optimiser steps from one log to the next."""
    period: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return period


def log_metrics(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Send numbers of the current step to every logger, with the number of samples seen."""
    data: Any = getattr(trainer, "datamodule", None)
    samples = {"samples": trainer.global_step * data.batch_size} if data is not None else {}
    for logger in trainer.loggers:
        logger.log_metrics({**metrics, **samples}, step=trainer.global_step)
