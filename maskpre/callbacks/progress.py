"""What a person sees while a run goes on."""

import sys
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from maskpre.callbacks.meter import Meter


class ProgressDisplay(Callback):
    """A live bar on a terminal, plain lines elsewhere: loss, learning rate, images/s, data wait, time left.

    The bar moves every `refresh_seconds`; a line is printed every `line_seconds`.
    """

    def __init__(self, *, refresh_seconds: float = 0.5, line_seconds: float = 15.0) -> None:
        self.console = Console()
        self.period = refresh_seconds if self.console.is_terminal else line_seconds
        self._bar: Progress | None = None
        self._started = self._shown = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar on the first rank."""
        self._started = self._shown = time.monotonic()
        self._first_step = trainer.global_step
        if self.console.is_terminal and trainer.is_global_zero:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self.console)
            self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
            self._bar.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Show the state when it is time."""
        now = time.monotonic()
        if trainer.is_global_zero and now - self._shown >= self.period:
            self._shown = now
            self._show(trainer)

    def _show(self, trainer: Trainer) -> None:
        text = self._describe(trainer)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step, description=text)
        else:
            print(f"step {trainer.global_step}/{trainer.max_steps}  {text}", file=sys.stdout, flush=True)

    def _describe(self, trainer: Trainer) -> str:
        meter = next(callback for callback in trainer.callbacks if isinstance(callback, Meter))  # type: ignore[attr-defined]
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        done = trainer.global_step - self._first_step
        left = (time.monotonic() - self._started) / max(done, 1) * (trainer.max_steps - trainer.global_step)
        return (
            f"loss {meter.losses['loss'].item():.4f}  lr {rate:.2e}  {meter.images_per_second:.0f} images/s  "
            f"data wait {meter.data_wait:.0%}  {_clock(left)} left"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the final state and close."""
        if trainer.is_global_zero:
            self._show(trainer)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
