"""Ending what loggers have open, before a process ends without the usual ceremonies."""

import threading
from collections.abc import Sequence

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger

SECONDS = 10.0


def close_for_requeue(loggers: Sequence[Logger]) -> None:
    """Hand over what is not written yet, in ten seconds at most: an unreachable server must not hold a job.

    A wandb run is marked as preempted, not as finished; the requeued job goes on in it.
    """
    worker = threading.Thread(target=_close_all, args=(loggers,), daemon=True)
    worker.start()
    worker.join(SECONDS)


def _close_all(loggers: Sequence[Logger]) -> None:
    for logger in loggers:
        logger.finalize("preempted")
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            run.mark_preempting()
            run.finish(exit_code=1)
