"""Stops a run whose loss is no longer a number, and keeps what is needed to find out why."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from maskpre.checkpoints.save import atomic_save
from maskpre.errors import UserError
from maskpre.ops.ranks import mean_over_ranks, whole
from maskpre.run_folder import RunFolder


class NonFiniteLossError(UserError):
    """The loss or a gradient became infinite or not a number."""


class NonFiniteGuard(Callback):
    """Skips optimiser steps with a non-finite loss or gradient norm; more than `tolerate` stop the run.

    The step is skipped inside the fused optimiser, on the device; the host looks at the verdict one step
    later, when it is there. Every such step leaves a dump in the run's folder: the batch, the weights as
    they were, seed and progress, to be run again by `python -m maskpre.replay`.
    """

    def __init__(self, *, folder: RunFolder, tolerate: int = 0) -> None:
        if tolerate < 0:
            raise ValueError(f"tolerate must be at least 0 skipped steps, got {tolerate}")
        self.folder, self.tolerate = folder.path / "nonfinite", tolerate
        self.skipped = 0
        self._verdict: Tensor | None = None
        self._batch: dict[str, Tensor] = {}
        self._loss: Tensor | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Read the verdict on the step before; then remember this batch."""
        self._judge(trainer, pl_module)
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss until the optimiser steps; accumulated micro-batches add up."""
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Tell the optimiser to leave the weights alone if anything is not finite."""
        assert self._loss is not None
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(grads))
        # Ranks that disagreed would go on with different weights.
        bad = mean_over_ranks((~(torch.isfinite(self._loss) & torch.isfinite(norm))).float()) > 0
        self._verdict, self._loss = bad, None
        if trainer.precision == "16-mixed":
            # Infinite gradients are part of dynamic loss scaling, whose scaler skips such steps itself.
            self._verdict = None
        elif optimizer.defaults.get("fused"):
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        elif bool(bad):
            optimizer.zero_grad(set_to_none=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the last step too."""
        self._judge(trainer, pl_module)

    def _judge(self, trainer: Trainer, pl_module: LightningModule) -> None:
        verdict, self._verdict = self._verdict, None
        if verdict is None or not bool(verdict):
            return
        self.skipped += 1
        step = trainer.global_step
        path = self.folder / f"step-{step}-rank-{trainer.global_rank}.pt"
        path.parent.mkdir(exist_ok=True)
        keys = self._keys(trainer)
        module: Any = pl_module
        state: Mapping[str, Any] = {
            "batch": {name: value.cpu() for name, value in self._batch.items()},
            "keys": keys,
            "state_dict": {name: whole(value).cpu() for name, value in module.model.state_dict().items()},
            "config": module.config,
            "seed": module.seed,
            "progress": (step - 1) / module.total_steps,
        }
        atomic_save(state, path)
        if self.skipped > self.tolerate:
            raise NonFiniteLossError(
                f"loss or gradient not finite in step {step} (skipped steps: {self.skipped}, tolerated: "
                f"{self.tolerate}); samples {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}; the step "
                f"can be run again with: python -m maskpre.replay {path}"
            )

    def _keys(self, trainer: Trainer) -> list[str]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        source = data.source("train")
        return [source.key(int(index)) for index in self._batch["index"].cpu()]
