"""An exponential moving average of the weights."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from maskpre.callbacks.steps import StepCallback


class WeightEMA(StepCallback):
    """Averages all weights after each optimiser step: average = decay * average + (1 - decay) * weight.

    The average is saved in checkpoints under "ema" with the model's own names, and resumed exactly.
    """

    def __init__(self, *, decay: float = 0.9999) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"EMA decay must be between 0 and 1, got {decay}")
        self.decay = decay
        self.average: AveragedModel | None = None
        self._loaded: dict[str, Tensor] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the current weights, or from the checkpoint's average."""
        model: Any = pl_module.model
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=False)
        if self._loaded is not None:
            self.average.module.load_state_dict(self._loaded)
        # The first update copies; the start is the copy already.
        self.average.n_averaged.fill_(1)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average once per optimiser step."""
        if self.average is not None:
            with torch.no_grad():
                self.average.update_parameters(pl_module.model)  # type: ignore[arg-type]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the average."""
        if self.average is not None:
            checkpoint["ema"] = dict(self.average.module.state_dict())

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the stored average until the fit starts."""
        self._loaded = checkpoint.get("ema")
