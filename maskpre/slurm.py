"""The SLURM job this process belongs to."""

import os
import re
import subprocess
from dataclasses import dataclass

from omegaconf import DictConfig

from maskpre.errors import UserError

# What salloc and `srun --pty bash` call their jobs: somebody is working there, nothing may be requeued.
_INTERACTIVE = ("bash", "interactive", "sh", "zsh")
_PATIENCE = 60.0


@dataclass(frozen=True)
class SlurmJob:
    """A job, or one element of a job array, which is then all that is meant by it.

    Attributes:
        id: as scontrol takes it: JOB, or JOB_TASK for an element.
        restarts: how often it has been requeued.
    """

    id: str
    restarts: int

    def requeue(self) -> str | None:
        """Have it run again from the start of its script; None, or why that is not possible.

        A job that is being ended before its time has been cancelled by somebody, or is requeued by SLURM
        itself: it is left alone, or `scancel` could never end it.
        """
        try:
            if self._is_being_cancelled():
                return "it is being cancelled"
            asked = _scontrol("requeue", self.id)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return None if asked.returncode == 0 else (asked.stderr or asked.stdout).strip()

    def _is_being_cancelled(self) -> bool:
        shown = dict(re.findall(r"(\w+)=(\S*)", _scontrol("show", "job", "-o", self.id).stdout))
        if shown.get("JobState") not in ("COMPLETING", "CANCELLED"):
            return False
        return _seconds(shown.get("RunTime", "")) < _seconds(shown.get("TimeLimit", ""))


def current_job() -> SlurmJob | None:
    """The batch job or srun this process runs in; None outside SLURM and in an interactive session."""
    env = os.environ
    job = env.get("SLURM_JOB_ID")
    if job is None or env.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return SlurmJob(id=job, restarts=int(env.get("SLURM_RESTART_COUNT", "0")))


def srun_started_ranks() -> bool:
    """Whether SLURM has started this process as one of the run's ranks, and no other launcher."""
    return (
        current_job() is not None and "SLURM_NTASKS" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
    )


def check_tasks(cfg: DictConfig) -> None:
    """Raise UserError if SLURM has started another number of tasks than the trainer has devices."""
    if not srun_started_ranks() or "SLURM_STEP_ID" not in os.environ:
        return
    tasks, per_node = os.environ["SLURM_NTASKS"], os.environ.get("SLURM_NTASKS_PER_NODE")
    if per_node is None and int(tasks) > 1:
        raise UserError(f"SLURM has started {tasks} tasks; ask for --ntasks-per-node instead of --ntasks")
    started = {"devices": per_node or tasks, "num_nodes": os.environ.get("SLURM_NNODES", "1")}
    for key, count in started.items():
        wanted = str(cfg.trainer.get(key, 1))
        if wanted not in (count, "auto", "-1"):
            what = "tasks per node" if key == "devices" else "nodes"
            raise UserError(
                f"SLURM has started {count} {what}, trainer.{key} is {wanted}: every device needs a task; "
                f"set trainer.{key}={count} or ask SLURM for {wanted}"
            )


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scontrol", *arguments], capture_output=True, text=True, timeout=_PATIENCE, check=False
    )


def _seconds(text: str) -> float:
    """Seconds of [DAYS-]HOURS:MINUTES:SECONDS; infinite for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if match is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds
