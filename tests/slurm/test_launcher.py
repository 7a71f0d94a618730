"""A sweep on a real SLURM: one job for each configuration, one table of them all."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskpre.sweep import main

pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher", reason="jobs are submitted with hydra-submitit-launcher"
)


def command(runs: Path, *overrides: str) -> list[str]:
    options = ["gpus_per_node=null", "cpus_per_task=1", "timeout_min=10", "mem_gb=1"]
    launcher = ["hydra/launcher=slurm", *(f"hydra.launcher.{option}" for option in options)]
    here = [f"runs_dir={runs}", "trainer.accelerator=cpu"]
    return [sys.executable, "-m", "maskpre.train", "-m", *overrides, *launcher, *here]


def test_a_sweep_of_four_one_preempted_ends_with_four_run_folders_and_one_table(
    cluster: Any, tiny_mae: list[str], tmp_path: Path
) -> None:
    """Only the job that is signalled runs again; the command waits for it."""
    swept = ["masking.ratio=0.5,0.75", "seed=0,1", "max_steps=40", cluster.paused(0.1)]
    output = tmp_path / "sweep.out"
    with output.open("w") as file:
        submitting = subprocess.Popen(
            command(tmp_path, *tiny_mae, *swept), env=cluster.env, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        cluster.wait(
            lambda: submitting.poll() is not None,
            lambda: [path for path in tmp_path.glob("mae/job*_1_*") if cluster.step(path) > 1],
            output,
        )
        array = next(tmp_path.glob("mae/job*_1_*")).name.removeprefix("job").partition("_")[0]
        cluster.command("scancel", "--signal=USR2", f"{array}_1")
        assert submitting.wait(timeout=900) == 0, output.read_text()
    finally:
        submitting.kill()
    shown = [cluster.command("scontrol", "show", "job", "-o", f"{array}_{number}") for number in range(4)]
    assert ["Restarts=1" in text for text in shown] == [False, True, False, False]
    assert len(list(tmp_path.glob("mae/*"))) == 4
    table = tmp_path / "table.csv"
    assert main([str(tmp_path), "--csv", str(table)]) == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[1:5] == ["masking.ratio", "seed", "status", "step"]
    found = {(row["masking.ratio"], row["seed"], row["status"], row["step"]) for row in rows}
    assert found == {(ratio, seed, "finished", "40/40") for ratio in ("0.5", "0.75") for seed in "01"}
    assert len({row["loss"] for row in rows}) == 4


@pytest.mark.slow
def test_a_job_that_fails_is_told_where_it_was_submitted(
    cluster: Any, tiny_mae: list[str], tmp_path: Path
) -> None:
    tiny = [line for line in tiny_mae if not line.startswith(("data.cache_dir", "data.num_"))]
    failing = command(tmp_path, *tiny, "data=folder", f"data.root={tmp_path}/none")
    ended = subprocess.run(failing, env=cluster.env, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 1
    assert f"the folder '{tmp_path}/none' does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr
