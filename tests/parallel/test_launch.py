"""Runs on two ranks as users start them: one folder, one log, one checkpoint; and how they end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskpre.checkpoints.read import read_checkpoint
from maskpre.checkpoints.sharded import is_sharded
from maskpre.run_folder import is_first_rank

PLAIN = [sys.executable, "-m", "maskpre.train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
TORCHRUN += ["maskpre.train"]
TWO = ["trainer.devices=2", "trainer.accelerator=cpu"]


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
    ],
)
def test_the_first_rank_is_known_from_every_launcher(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], first: bool
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_rank() is first


def start(launcher: list[str], overrides: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, *overrides], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )


def only_folder(runs: Path) -> Path:
    (folder,) = (runs / "mae").iterdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [PLAIN, TORCHRUN], ids=["plain", "torchrun"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_all_ranks_write_into_one_folder(
    tiny_mae: list[str], tmp_path: Path, launcher: list[str], strategy: str
) -> None:
    how = ["trainer=fsdp2"] if strategy == "fsdp2" else []
    process = start(launcher, [*tiny_mae, *how, *TWO, "max_steps=4", f"runs_dir={tmp_path}"])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    folder = only_folder(tmp_path)
    assert is_sharded(folder / "checkpoints/last.ckpt") is (strategy == "fsdp2")
    assert read_checkpoint(folder / "checkpoints/last.ckpt")["global_step"] == 4
    assert len((folder / "metrics.csv").read_text().splitlines()) == 5
    assert output.count("finished at step 4 of 4") == 1


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of training processes below a launcher, itself included if it trains."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    children = [
        int(pid) for pid, parent, args in rows if int(parent) == process.pid and "maskpre.train" in args
    ]
    return children if len(children) > 1 else [process.pid, *children]


def runs(pid: int) -> bool:
    """Whether a process still computes; one that has ended may wait a while to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [PLAIN, TORCHRUN], ids=["plain", "torchrun"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_within_a_minute(
    tiny_mae: list[str], tmp_path: Path, launcher: list[str], rank: int
) -> None:
    process = start(launcher, [*tiny_mae, *TWO, "max_steps=100000", f"runs_dir={tmp_path}"])
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("mae/*/metrics.csv")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ranks = ranks_of(process)
    assert len(ranks) == 2
    os.kill(ranks[rank], signal.SIGKILL)
    killed = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    assert re.search(rf"rank\W+{rank}", output), output
    assert not any(runs(pid) for pid in ranks)
