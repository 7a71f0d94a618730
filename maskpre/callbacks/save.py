"""Checkpoints: the last state, periodically, at the end and when a signal asks."""

import signal
import time
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer

from maskpre.callbacks.steps import StepCallback
from maskpre.run_folder import RunFolder

SAVE_SIGNALS = (signal.SIGUSR1,)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# With several ranks the decision to save is agreed on only this often (optimiser steps): agreeing waits
# for the device.
AGREE_EVERY = 10


class SaveLast(StepCallback):
    """Writes the run's last checkpoint every `every_steps` optimiser steps or `every_minutes`.

    SIGUSR1 saves at the next optimiser step; SIGTERM and SIGINT save and stop, a second one stops at once.
    Saving happens between optimiser steps only, so that a counter is all a resume needs.
    """

    def __init__(
        self, *, folder: RunFolder, every_steps: int | None = None, every_minutes: float = 15.0
    ) -> None:
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, got {every_steps}")
        if every_minutes <= 0:
            raise ValueError(f"every_minutes must be positive, got {every_minutes}")
        self.path, self.every_steps, self.every_minutes = folder.last, every_steps, every_minutes
        self.stopped_by: signal.Signals | None = None
        self._asked = False
        self._saved_step = -1
        self._saved_at = time.monotonic()
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals; the handlers only note what was asked."""
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        for number in (*SAVE_SIGNALS, *STOP_SIGNALS):
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        self._asked = True
        if received in STOP_SIGNALS:
            self.stopped_by = received
            signal.signal(received, self._previous.get(received) or signal.SIG_DFL)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and stop if asked to, where an optimiser step has just been completed."""
        step = trainer.global_step
        periodic = self.every_steps is not None and step % self.every_steps == 0
        asked, stop = self._agree(trainer, step)
        if periodic or asked:
            self._save(trainer)
        if stop:
            trainer.should_stop = True

    def _agree(self, trainer: Trainer, step: int) -> tuple[bool, bool]:
        """Whether any rank was asked to save or to stop."""
        late = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        wishes = (self._asked or late, self.stopped_by is not None)
        if trainer.world_size == 1:
            return wishes
        if step % AGREE_EVERY:
            return False, False
        flags = torch.tensor(wishes, dtype=torch.float32, device=trainer.strategy.root_device)
        save, stop = (trainer.strategy.reduce(flags, reduce_op="sum") > 0).tolist()
        return save, stop

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step:
            trainer.save_checkpoint(self.path)
        self._asked = False
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state and give the signals back."""
        self._save(trainer)
        self._restore_signals()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore_signals()

    def _restore_signals(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
