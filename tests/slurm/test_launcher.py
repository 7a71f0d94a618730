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


def launch(cluster: Any, runs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    options = ["gpus_per_node=null", "cpus_per_task=1", "timeout_min=10", "mem_gb=1"]
    command = [sys.executable, "-m", "maskpre.train", "-m", *overrides, "hydra/launcher=slurm"]
    command += [f"runs_dir={runs}", "trainer.accelerator=cpu", *(f"hydra.launcher.{one}" for one in options)]
    return subprocess.run(command, env=cluster.env, cwd=runs, capture_output=True, text=True, timeout=900)


def test_a_sweep_of_four_ends_with_four_run_folders_and_one_table(
    cluster: Any, tiny_mae: list[str], tmp_path: Path
) -> None:
    swept = ["experiment=mae", "masking.ratio=0.5,0.75", "seed=0,1"]
    ended = launch(cluster, tmp_path, *tiny_mae[1:], *swept)
    assert ended.returncode == 0, ended.stderr
    folders = sorted(tmp_path.glob("mae/job*"))
    assert len(folders) == 4
    table = tmp_path / "table.csv"
    assert main([str(tmp_path), "--csv", str(table)]) == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[1:5] == ["masking.ratio", "seed", "status", "step"]
    found = {(row["masking.ratio"], row["seed"], row["status"], row["step"]) for row in rows}
    assert found == {(ratio, seed, "finished", "12/12") for ratio in ("0.5", "0.75") for seed in "01"}
    assert len({row["loss"] for row in rows}) == 4


def test_a_job_that_fails_is_told_where_it_was_submitted(
    cluster: Any, tiny_mae: list[str], tmp_path: Path
) -> None:
    tiny = [line for line in tiny_mae if not line.startswith(("data.cache_dir", "data.num_"))]
    ended = launch(cluster, tmp_path, *tiny, "data=folder", f"data.root={tmp_path}/none")
    assert ended.returncode == 1
    assert f"the folder '{tmp_path}/none' does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr
