"""Tells when clusters are no longer told apart."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from maskpre.callbacks.meter import log_period

SUFFIX = "_nearest_entropy"


class CollapseWarning(Callback):
    """Warns once when a loss measured, `patience` logs in a row, that nearly all tokens are near one cluster.

    That is: an entropy of the use of clusters (`*_nearest_entropy` of `SwappedAssignments`, in [0, 1]) below
    `min_entropy`. Values are read from the device when they are logged.
    """

    def __init__(self, *, min_entropy: float = 0.05, patience: int = 10) -> None:
        if not 0 < min_entropy < 1:
            raise ValueError(f"min_entropy must be between 0 and 1, got {min_entropy}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1 log, got {patience}")
        self.min_entropy, self.patience = min_entropy, patience
        self._low: dict[str, int] = {}
        self._last_step, self._warned = 0, False

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Look at what is logged."""
        step = trainer.global_step
        due = step % log_period(trainer) == 0 and step != self._last_step
        self._last_step = step
        if due and not self._warned and "step" in outputs:
            self._look(outputs["step"].metrics)

    def _look(self, metrics: dict[str, dict[str, Tensor]]) -> None:
        for objective, measured in metrics.items():
            for name, value in measured.items():
                if name.endswith(SUFFIX):
                    self._count(f"{objective}/{name}", value)

    def _count(self, name: str, value: Tensor) -> None:
        entropy = float(torch.as_tensor(value))
        self._low[name] = self._low.get(name, 0) + 1 if entropy < self.min_entropy else 0
        if self._low[name] == self.patience:
            self._warned = True
            rank_zero_warn(
                f"clusters collapse: train/{name} was below {self.min_entropy} in {self.patience} logs in a "
                f"row ({entropy:.3f} now): nearly all tokens are nearest to one prototype. Try a lower "
                "optim.base_lr, fewer target.num_prototypes or larger batches"
            )
