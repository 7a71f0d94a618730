"""An exponential moving average of the weights, to be evaluated instead of them."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from maskpre.callbacks.steps import StepCallback
from maskpre.module import FROZEN
from maskpre.ops.average import average_tensors


class WeightEMA(StepCallback):
    """Averages all weights after each optimiser step: average = decay * average + (1 - decay) * weight.

    The average is saved in checkpoints under "ema" with the model's own names, and resumed exactly. Frozen
    parts and averages that the model keeps for itself are not averaged again.
    """

    def __init__(self, *, decay: float = 0.9999) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"EMA decay must be between 0 and 1, got {decay}")
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self._loaded: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the current weights, or from the checkpoint's average."""
        super().on_train_start(trainer, pl_module)
        self.average = {name: value.detach().clone() for name, value in _trained(pl_module).items()}
        for name, value in self._loaded.items():
            if name in self.average:
                self.average[name].copy_(value)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average once per optimiser step."""
        current = _trained(pl_module)
        average_tensors([self.average[name] for name in current], list(current.values()), self.decay)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the average, and what is not averaged as it is."""
        model: Any = pl_module.model
        kept = {name: value for name, value in model.state_dict().items() if not name.startswith(FROZEN)}
        checkpoint["ema"] = {**kept, **self.average}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the stored average until the fit starts."""
        self._loaded = checkpoint.get("ema", {})


def _trained(pl_module: LightningModule) -> dict[str, torch.nn.Parameter]:
    model: Any = pl_module.model
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
