"""Lightning's view of a model: it calls the loop, optimises, and logs. It knows no system."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from maskpre.model import MaskedModel
from maskpre.ops.noise import KeyedNoise
from maskpre.optim.clipping import clip_gradients
from maskpre.parallel.strategy import ShardedStrategy
from maskpre.types import Step

OptimizerBuilder = Callable[..., tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]]

FROZEN = ("teachers.",)


def trained_parameters(model: MaskedModel) -> list[tuple[str, nn.Parameter]]:
    """What the optimiser gets, by name."""
    return [(name, weight) for name, weight in model.named_parameters() if not name.startswith(FROZEN)]


class PretrainModule(LightningModule):
    """Trains a `MaskedModel` for `total_steps` optimiser steps.

    Every random draw is keyed by `seed` and the samples; `config` (plain containers) goes into checkpoints.
    """

    def __init__(
        self,
        *,
        model: MaskedModel,
        build_optimizer: OptimizerBuilder,
        total_steps: int,
        seed: int,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        self.build_optimizer = build_optimizer
        self.total_steps, self.seed, self.config = total_steps, seed, config

    @property
    def progress(self) -> float:
        """Share of the training done, in [0, 1]."""
        return min(self.global_step / self.total_steps, 1.0)

    def noise(self, batch: dict[str, Tensor]) -> KeyedNoise:
        """The noise that belongs to these samples."""
        return KeyedNoise(self.seed, batch["epoch"], batch["index"])

    def configure_model(self) -> None:
        """Take the run's number format, and be divided among ranks where the strategy wants it."""
        # Lightning would do so after it read a checkpoint, whose float64 weights would be rounded.
        self.trainer.precision_plugin.convert_module(self)
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            strategy.shard(self.model)

    def forward(self, batch: dict[str, Tensor]) -> Step:
        """One step of the model at the current progress."""
        return self.model(batch, noise=self.noise(batch), progress=self.progress)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Seed what still draws from torch's own generator (dropout), so that a resumed step repeats."""
        torch.manual_seed(hash((self.seed, self.global_rank, batch_idx)) % 2**63)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Any]:
        """The loss to minimise, and the step for callbacks."""
        step = self(batch)
        return {"loss": step.total, "step": step}

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser, and its schedule as a function of the optimiser step."""
        optimizer, schedule = self.build_optimizer(trained_parameters(self.model))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, and let the model act on its new weights before any callback sees or saves them."""
        progress = self.progress
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.model.after_step(progress)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer was told."""
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the model under its own names, without frozen teachers, and the configuration beside it."""
        state = self.model.state_dict()
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith(FROZEN)}
        checkpoint["config"] = self.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Undo what saving did to the names."""
        frozen = {k: v for k, v in self.model.state_dict().items() if k.startswith(FROZEN)}
        state = {**checkpoint["state_dict"], **frozen}
        checkpoint["state_dict"] = {f"model.{key}": value for key, value in state.items()}
