"""Runs under a real SLURM: whatever ends a job, its run ends with the losses of an undisturbed one."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from maskpre.checkpoints.read import read_torch
from maskpre.config import compose
from maskpre.run_folder import RunFolder, open_run_folder
from maskpre.training import build_training


def losses(folder: Path) -> dict[int, tuple[str, str]]:
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    loss, norm = lines[0].index("train/loss"), lines[0].index("train/grad_norm")
    return {int(row[0]): (row[loss], row[norm]) for row in lines[1:]}


def test_a_job_of_two_tasks_is_signalled_and_requeued_then_killed_and_submitted_again(
    cluster: Any, tiny_mae: list[str], tmp_path: Path
) -> None:
    """One job after the other: SIGUSR1 and a requeue, kill -9 and a new job."""
    # SLURM's signals reach the loader's workers too.
    shape = ("--ntasks-per-node=2",)
    train = [
        *tiny_mae,
        "data.num_workers=1",
        "max_steps=120",
        cluster.paused(0.05),
        "callbacks.save.every_steps=5",
    ]
    undisturbed, whole = tmp_path / "undisturbed.out", tmp_path / "undisturbed"
    first = cluster.submit(undisturbed, *shape, train=[*train, f"run_dir={whole}"])

    output, runs = tmp_path / "disturbed.out", tmp_path / "runs"
    job = cluster.submit(output, *shape, train=[*train, f"runs_dir={runs}"])
    cluster.wait_on(job, lambda: [path for path in runs.glob("mae/*") if cluster.step(path) >= 2], output)
    (folder,) = runs.glob("mae/*")
    assert folder.name.startswith(f"job{job}_seed0_")
    cluster.command("scancel", "--signal=USR1", job)
    cluster.wait_on(job, lambda: f"requeued job {job}" in output.read_text(), output)
    stopped = int(read_torch(folder / "checkpoints/last.ckpt")["global_step"])
    assert 2 <= stopped < 120
    assert RunFolder(folder).status.state == "requeued"

    resuming = f"resuming from {folder}/checkpoints/last.ckpt"
    cluster.wait_on(job, lambda: resuming in output.read_text(), output)
    cluster.wait_on(
        job,
        lambda: RunFolder(folder).status.state == "running" and cluster.step(folder) >= stopped + 2,
        output,
    )
    os.kill(RunFolder(folder).status.pid, signal.SIGKILL)
    cluster.wait_on(job, lambda: cluster.state(job) == "FAILED", output)
    killed = int(read_torch(folder / "checkpoints/last.ckpt")["global_step"])
    assert stopped <= killed < 120
    assert [path.name for path in runs.glob("mae/*")] == [folder.name]

    again = tmp_path / "again.out"
    cluster.wait_for_end(cluster.submit(again, *shape, train=[*train, f"run_dir={folder}"]), again)
    cluster.wait_for_end(first, undisturbed)
    assert losses(folder).keys() == set(range(1, 121))
    assert losses(folder) == losses(whole)
    parts, full = (read_torch(path / "checkpoints/last.ckpt")["state_dict"] for path in (folder, whole))
    assert all(torch.equal(parts[name], full[name]) for name in full)


@pytest.mark.parametrize(
    "signal_before",
    ["--signal=USR1@40", pytest.param("--signal=CONT@1", marks=pytest.mark.slow, id="SIGTERM at the end")],
)
def test_a_job_that_reaches_its_time_limit_is_requeued(
    cluster: Any, tiny_mae: list[str], tmp_path: Path, signal_before: str
) -> None:
    """SLURM looks at time limits every half minute, and may signal up to a minute earlier than it is told."""
    train = [*tiny_mae, "max_steps=400"]
    output, folder, whole = tmp_path / "job.out", tmp_path / "disturbed", tmp_path / "undisturbed"
    options = ("--ntasks-per-node=1", "--time=60", signal_before)
    job = cluster.submit(output, *options, train=[*train, cluster.paused(0.3), f"run_dir={folder}"])
    cluster.wait_on(job, lambda: cluster.step(folder) >= 2, output)
    # A slow machine would not get this far within a minute, nor from here to the end.
    cluster.command("scontrol", "update", f"JobId={job}", f"TimeLimit={1 + cluster.minutes(job)}")
    cfg = compose([*train, f"run_dir={whole}"])
    training = build_training(cfg, open_run_folder(cfg))
    training.trainer.fit(training.module, datamodule=training.data)
    cluster.wait_on(job, lambda: output.exists() and f"requeued job {job}" in output.read_text(), output)
    cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    cluster.wait_for_end(job, output)
    assert "Restarts=1" in cluster.command("scontrol", "show", "job", job)
    assert losses(folder).keys() == set(range(1, 401))
    assert losses(folder) == losses(whole)


def test_a_cancelled_job_saves_and_stays_cancelled(cluster: Any, tiny_mae: list[str], tmp_path: Path) -> None:
    output, folder = tmp_path / "job.out", tmp_path / "run"
    train = [*tiny_mae, "max_steps=2000", cluster.paused(0.05), f"run_dir={folder}"]
    job = cluster.submit(output, train=train)
    cluster.wait_on(job, lambda: cluster.step(folder) >= 2, output)
    cluster.command("scancel", job)
    cluster.wait_on(job, lambda: cluster.state(job) == "CANCELLED", output)
    told = f"job {job} is not requeued: it is being cancelled"
    cluster.wait_on(job, lambda: told in output.read_text(), output)
    assert 2 <= read_torch(folder / "checkpoints/last.ckpt")["global_step"] < 2000
    assert RunFolder(folder).status.state == "stopped"
