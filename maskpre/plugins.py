"""What Lightning's trainer is given beside its configuration."""

from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from maskpre.checkpoints.lightning_io import AtomicCheckpointIO
from maskpre.slurm import srun_started_ranks


def trainer_plugins() -> list[Any]:
    """Atomic checkpoints; under SLURM also its ranks, without Lightning's requeueing.

    That one saves inside the signal handler, where ranks wait for each other at different places, and in the
    loader's workers too. `maskpre.callbacks.save.SaveLast` requeues.
    """
    ranks = [SLURMEnvironment(auto_requeue=False)] if srun_started_ranks() else []
    return [AtomicCheckpointIO(), *ranks]
