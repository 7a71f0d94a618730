"""Running a function on several ranks of this machine, and a training run on them."""

import csv
import multiprocessing
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from maskpre.run_folder import open_run_folder
from maskpre.training import build_training


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _one_rank(rank: int, world: int, port: int, log: Path, work: Callable[[], Any]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
    }
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        try:
            work()
        except BaseException:
            traceback.print_exc(file=file)
            file.flush()
            os._exit(1)
    os._exit(0)


def start_ranks(world: int, folder: Path, work: Callable[[], Any]) -> None:
    """Run `work` in `world` processes as torchrun would; they start as copies of this one."""
    context, port = multiprocessing.get_context("fork"), free_port()
    logs = [folder / f"rank{rank}.log" for rank in range(world)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        processes = [
            context.Process(target=_one_rank, args=(rank, world, port, logs[rank], work))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.stdout.write("\n".join(log.read_text()[-5000:] for log in logs))
        raise AssertionError(f"exit codes {[process.exitcode for process in processes]}")


@pytest.fixture(scope="session")
def on_ranks() -> Callable[[int, Path, Callable[[], Any]], None]:
    return start_ranks


def train(cfg: DictConfig) -> Path:
    """Train as the command does, on the ranks there are; the run's folder."""
    folder = open_run_folder(cfg)
    training = build_training(cfg, folder)
    training.trainer.fit(training.module, datamodule=training.data, ckpt_path=folder.resume_from(cfg.resume))
    return folder.path


@pytest.fixture(scope="session")
def fit() -> Callable[[DictConfig], Path]:
    return train


def read_losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def losses() -> Callable[[Path], list[float]]:
    return read_losses
