"""Going on where an interrupted run stopped, also with other ranks or accumulation."""

import logging
from typing import Any

from lightning.pytorch import Trainer

log = logging.getLogger(__name__)

Layout = dict[str, Any]
"""What the samples of an optimiser step depend on, besides its number."""


def continue_layout(trainer: Trainer, *, before: Layout, now: Layout) -> None:
    """Warn if the interrupted run's order can't be continued; keep Lightning's batch counter in step.

    Lightning restores the number of micro-batches it has seen. With another number of them per optimiser
    step that count would end accumulation windows in the wrong place, so it is moved to what it would be
    had the whole run used the new number.
    """
    changed = [name for name in now if name != "micro_batches" and now[name] != before.get(name)]
    if changed:
        changes = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in changed)
        log.warning("the resumed run can't continue the interrupted run's order of samples: %s", changes)
    shift = trainer.global_step * (now["micro_batches"] - before["micro_batches"])
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for counter in (progress.total, progress.current):
        for name in ("ready", "started", "processed", "completed"):
            setattr(counter, name, getattr(counter, name) + shift)
