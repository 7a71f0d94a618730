"""What a run knows of its SLURM job; tests/slurm has the real one."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskpre import slurm
from maskpre.errors import UserError
from maskpre.slurm import SlurmJob, check_tasks, current_job

INSIDE = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "maskpre", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a task of a SLURM job."""
    for name, value in INSIDE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_an_element_of_an_array_is_a_job_of_its_own(inside: pytest.MonkeyPatch) -> None:
    assert current_job() == SlurmJob(id="12", restarts=0)
    inside.setenv("SLURM_ARRAY_JOB_ID", "10")
    inside.setenv("SLURM_ARRAY_TASK_ID", "3")
    inside.setenv("SLURM_RESTART_COUNT", "2")
    assert current_job() == SlurmJob(id="10_3", restarts=2)
    inside.setenv("SLURM_JOB_NAME", "interactive")
    assert current_job() is None


@pytest.mark.parametrize(
    ("shown", "refused"),
    [
        ("JobState=RUNNING RunTime=00:01:00 TimeLimit=01:00:00", None),
        ("JobState=COMPLETING RunTime=00:01:00 TimeLimit=01:00:00", "it is being cancelled"),
        ("JobState=COMPLETING RunTime=1-00:00:02 TimeLimit=1-00:00:00", None),
        ("JobState=COMPLETING RunTime=9-00:00:00 TimeLimit=UNLIMITED", "it is being cancelled"),
    ],
)
def test_only_somebodys_wish_to_end_a_job_keeps_it_from_being_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, refused: str | None
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\n[ "$1" = requeue ] && echo "$2" > {tmp_path}/asked\necho "{shown}"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SlurmJob(id="10_3", restarts=0).requeue() == refused
    assert (tmp_path / "asked").exists() == (refused is None)
    if refused is None:
        assert (tmp_path / "asked").read_text() == "10_3\n"


def test_a_refusal_of_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\n[ $1 = show ] || { echo 'not requeueable' >&2; exit 1; }\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SlurmJob(id="1", restarts=0).requeue() == "not requeueable"
    scontrol.unlink()
    assert "No such file or directory: 'scontrol'" in str(SlurmJob(id="1", restarts=0).requeue())


@pytest.mark.parametrize(
    ("env", "trainer", "message"),
    [
        ({}, {"devices": 2}, "ask for --ntasks-per-node instead of --ntasks"),
        ({"SLURM_NTASKS_PER_NODE": "2"}, {"devices": 1}, "started 2 tasks per node, trainer.devices is 1"),
        (
            {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "3"},
            {"devices": 2, "num_nodes": 2},
            "started 3 nodes, trainer.num_nodes is 2.* set trainer.num_nodes=3 or ask SLURM for 2",
        ),
    ],
)
def test_tasks_without_a_device_are_refused(
    inside: pytest.MonkeyPatch, env: dict[str, str], trainer: dict[str, int], message: str
) -> None:
    for name, value in env.items():
        inside.setenv(name, value)
    with pytest.raises(UserError, match=message):
        check_tasks(OmegaConf.create({"trainer": trainer}))


def test_a_task_per_device_and_other_launchers_are_fine(inside: pytest.MonkeyPatch) -> None:
    inside.setenv("SLURM_NTASKS_PER_NODE", "2")
    check_tasks(OmegaConf.create({"trainer": {"devices": 2, "num_nodes": 1}}))
    inside.setenv("TORCHELASTIC_RUN_ID", "x")
    check_tasks(OmegaConf.create({"trainer": {"devices": 8}}))
    assert not slurm.srun_started_ranks()
