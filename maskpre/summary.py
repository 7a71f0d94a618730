"""The last lines of a run."""

from typing import TypeVar

from lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table

from maskpre.callbacks.meter import Meter
from maskpre.callbacks.online_probe import OnlineProbe
from maskpre.run_folder import RunFolder
from maskpre.training import Training

T = TypeVar("T", bound=Callback)


def find_callback(trainer: Trainer, kind: type[T]) -> T | None:
    """The trainer's callback of a kind, if it has one."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def _probe_table(probe: OnlineProbe) -> Table:
    table = Table("probe (top-1)", "untrained", "pretrained")
    for name, value in probe.latest.items():
        before = probe.untrained.get(name)
        table.add_row(name, "-" if before is None else f"{before:.1%}", f"{value:.1%}")
    return table


def print_summary(training: Training, folder: RunFolder) -> None:
    """Print what came out, and where it lies."""
    trainer, console = training.trainer, Console(highlight=False, soft_wrap=True)
    meter, probe = find_callback(trainer, Meter), find_callback(trainer, OnlineProbe)
    done = trainer.global_step >= trainer.max_steps
    console.print(
        f"\n{'finished' if done else 'stopped'} at step {trainer.global_step} of {trainer.max_steps}"
    )
    if meter is not None and meter.losses:
        console.print(f"loss {meter.losses['loss'].item():.4f}, {meter.images_per_second:.0f} images/s")
    if meter is not None and probe is not None and probe.latest and done:
        console.print(_probe_table(probe))
        console.print(f"training took {meter.elapsed:.0f} s, probing {probe.seconds:.0f} s")
    console.print(f"run folder      {folder.path}")
    console.print(f"checkpoint      {folder.last}")
    pictures = sorted(folder.pictures.glob("*.png")) if folder.pictures.exists() else []
    if pictures:
        console.print(f"reconstructions {pictures[-1]}")
    if not done:
        console.print(f"continue with the same command and run_dir={folder.path}")
