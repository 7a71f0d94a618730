"""Whether ranks on several machines would find each other."""

import os
import socket
from collections.abc import Iterator

from omegaconf import DictConfig

from maskpre.diagnosis.base import Finding


def check_network(cfg: DictConfig) -> Iterator[Finding]:
    """The name of this machine and the meeting point a launcher set; both must have an address."""
    for what, host in (("host", socket.gethostname()), ("MASTER_ADDR", os.environ.get("MASTER_ADDR"))):
        if host is None:
            continue
        try:
            yield Finding(what, f"{host} ({socket.gethostbyname(host)})")
        except OSError:
            several = int(cfg.trainer.num_nodes) > 1
            yield Finding(what, f"{host} has no address", "error" if several else "note")
    if (
        int(cfg.trainer.num_nodes) > 1
        and "MASTER_ADDR" not in os.environ
        and "SLURM_JOB_ID" not in os.environ
    ):
        text = f"trainer.num_nodes is {cfg.trainer.num_nodes}: start the run with torchrun or srun"
        yield Finding("MASTER_ADDR", text, "note")
