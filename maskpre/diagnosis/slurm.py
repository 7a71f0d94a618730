"""What SLURM would tell the run, and where that contradicts the configuration."""

import os
from collections.abc import Iterator, Mapping

from omegaconf import DictConfig

from maskpre.config.conflicts import num_devices
from maskpre.diagnosis.base import Finding

SHOWN = (
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_NODELIST",
    "SLURM_NNODES",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_GPUS_ON_NODE",
    "SLURM_CPUS_PER_TASK",
    "SLURM_RESTART_COUNT",
)
# Lightning takes jobs of these names for a terminal, whose tasks are all rank 0.
_TERMINALS = ("bash", "interactive")


def check_slurm(cfg: DictConfig) -> Iterator[Finding]:
    """The job's variables, and its nodes and tasks against the trainer's."""
    env = os.environ
    if "SLURM_JOB_ID" not in env:
        yield Finding("SLURM", "not inside a job")
        return
    yield from (Finding(name, env[name]) for name in SHOWN if name in env)
    pairs = {
        "SLURM_NNODES": ("trainer.num_nodes", int(cfg.trainer.num_nodes)),
        "SLURM_NTASKS_PER_NODE": ("trainer.devices", num_devices(cfg.trainer.devices)),
    }
    for name, (path, value) in pairs.items():
        yield from _compare(env, name, path, value)
    if "SLURM_NTASKS" in env and "SLURM_NTASKS_PER_NODE" not in env and int(env["SLURM_NTASKS"]) > 1:
        text = "ask for tasks with --ntasks-per-node: Lightning refuses --ntasks alone"
        yield Finding("SLURM_NTASKS_PER_NODE", text, "error")
    if env.get("SLURM_JOB_NAME") in _TERMINALS:
        text = f"a job named {env['SLURM_JOB_NAME']!r} counts as a terminal; tasks won't find each other"
        yield Finding("SLURM_JOB_NAME", text, "note")


def _compare(env: Mapping[str, str], name: str, path: str, value: int) -> Iterator[Finding]:
    if name in env and int(env[name]) != value:
        yield Finding(name, f"is {env[name]}, but {path} is {value}", "error")
