"""What a run says about itself in its folder, for those who look at it from outside."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from maskpre.data.files import write_json
from maskpre.slurm import current_job

State = Literal["running", "finished", "failed", "stopped", "requeued"]


@dataclass(frozen=True)
class RunStatus:
    """The state of a run, the process it is or was in, and since when (seconds since 1970).

    `job` is the SLURM job, if there is one; `total_steps` the length of the run, once it is known; `message`
    says why it failed.
    """

    state: State
    host: str
    pid: int
    job: str | None
    since: float
    total_steps: int | None = None
    message: str = ""

    def process(self) -> str:
        """Where the run is, in words."""
        job = f", SLURM job {self.job}" if self.job else ""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}{job}, since {at}"


def write_status(path: Path, state: State, *, message: str = "", total_steps: int | None = None) -> None:
    """Say what this process's run is doing; the length of the run is kept once it has been said."""
    job, before = current_job(), read_status(path)
    if total_steps is None and before is not None:
        total_steps = before.total_steps
    status = RunStatus(
        state=state,
        host=socket.gethostname(),
        pid=os.getpid(),
        job=None if job is None else job.id,
        since=time.time(),
        total_steps=total_steps,
        message=message,
    )
    write_json(path, asdict(status))


def read_status(path: Path) -> RunStatus | None:
    """What the run has said last; None if nothing readable is there."""
    try:
        status = RunStatus(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return status if status.state in get_args(State) else None
