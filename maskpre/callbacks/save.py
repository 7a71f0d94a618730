"""Checkpoints: the last state, periodically, at the end and when a signal asks."""

import os
import signal
import sys
import time
from typing import Literal, NoReturn

from lightning import LightningModule, Trainer
from torch import Tensor

from maskpre.callbacks.agreement import Agreement
from maskpre.callbacks.steps import StepCallback
from maskpre.data.loader import DataError
from maskpre.loggers.closing import close_for_requeue
from maskpre.parallel.watch import stop_watching
from maskpre.run_folder import RunFolder
from maskpre.signals import SAVE_SIGNALS, STOP_SIGNALS, SignalNotes, notes
from maskpre.slurm import SlurmJob, current_job


class SaveLast(StepCallback):
    """Writes the run's last checkpoint every `every_steps` optimiser steps or `every_minutes`.

    SIGUSR1 and SIGUSR2 save at the next optimiser step; SIGTERM and SIGINT save and stop, a second one stops
    at once. In a SLURM job SIGUSR1, SIGUSR2 and SIGTERM, which announce a preemption or the end of its time,
    save, requeue the job and end the process with exit code 0; nobody else requeues it. `requeue` "never"
    saves and stops there as well. Saving happens between optimiser steps only, so that a counter is all a
    resume needs. Data that can't be read any more end a run, but not before it is saved (on one rank).
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        every_steps: int | None = None,
        every_minutes: float = 15.0,
        requeue: Literal["auto", "never"] = "auto",
    ) -> None:
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, got {every_steps}")
        if every_minutes <= 0:
            raise ValueError(f"every_minutes must be positive, got {every_minutes}")
        self.folder, self.every_steps, self.every_minutes = folder, every_steps, every_minutes
        self.requeue: Literal["auto", "never"] = requeue
        self._notes, self._agreement = SignalNotes(), Agreement()
        self._saved_step = -1
        self._saved_at = time.monotonic()
        self._between_steps = False

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that stopped the run, if one did."""
        return self._notes.stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, also to one that Lightning has put a handler of its own before."""
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        self._agreement.start(trainer.global_step)
        self._notes = notes()
        self._notes.listen((*SAVE_SIGNALS, *STOP_SIGNALS))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """From here on the state is no whole step's."""
        self._between_steps = False

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and stop or requeue if asked to, where an optimiser step has just been completed."""
        self._between_steps = True
        step = trainer.global_step
        periodic = self.every_steps is not None and step % self.every_steps == 0
        late = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        by, job = self._notes.stop, current_job() if self.requeue == "auto" else None
        asked, stop, leave = self._agreement.any_of(
            trainer,
            self._notes.save or late,
            by is not None,
            job is not None and by not in (None, signal.SIGINT),
        )
        if periodic or asked:
            self._save(trainer)
        if job is not None and leave and step < trainer.max_steps:
            self._leave(trainer, job)
        if stop:
            trainer.should_stop = True

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step:
            trainer.save_checkpoint(self.folder.last)
        self._notes.save = False
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def _leave(self, trainer: Trainer, job: SlurmJob) -> NoReturn:
        """End the process at once, without an exception, so that nothing counts the job as failed.

        What SLURM sends to a requeued job would otherwise meet a process that is still tidying up.
        """
        trainer.strategy.barrier()
        stop_watching(trainer)
        if not trainer.is_global_zero:
            time.sleep(1.0)  # rank 0 may still be in the barrier
            os._exit(0)
        refused = job.requeue()
        done = f"saved step {trainer.global_step} of {trainer.max_steps}"
        if refused is None:
            self.folder.write_status("requeued")
            print(f"{done}, requeued job {job.id}", flush=True)
        else:
            self.folder.write_status("stopped")
            print(f"{done}; job {job.id} is not requeued: {refused}", flush=True)
            print(f"continue with the same command and run_dir={self.folder.path}", flush=True)
        close_for_requeue(trainer.loggers)
        sys.stderr.flush()
        os._exit(0 if refused is None else 128 + (self._notes.stop or signal.SIGTERM))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state and give the signals back."""
        self._save(trainer)
        self._notes.restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save if it is only that data are missing, and give the signals back."""
        if isinstance(exception, DataError) and self._between_steps and trainer.world_size == 1:
            self._save(trainer)
        self._notes.restore()
