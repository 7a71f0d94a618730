"""Running a function on several ranks of this machine, and a training run on them."""

import csv
import logging
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
    with log.open("w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        # Handlers made under another test write to where its output went.
        logging.raiseExceptions = False
        torch.set_num_threads(1)
        try:
            work()
        except BaseException:
            traceback.print_exc(file=file)
            file.flush()
            os._exit(1)
    os._exit(0)


def run_ranks(world: int, folder: Path, work: Callable[[], Any]) -> list[int | None]:
    """Run `work` in `world` processes as torchrun would, and give their exit codes.

    They start as copies of this one, and write what they say into rankN.log.
    """
    context, port = multiprocessing.get_context("fork"), free_port()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        processes = [
            context.Process(target=_one_rank, args=(rank, world, port, folder / f"rank{rank}.log", work))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def start_ranks(world: int, folder: Path, work: Callable[[], Any]) -> None:
    codes = run_ranks(world, folder, work)
    if any(codes):
        sys.stdout.write("\n".join(path.read_text()[-5000:] for path in folder.glob("rank*.log")))
        raise AssertionError(f"exit codes {codes}")


@pytest.fixture(scope="session")
def try_ranks() -> Callable[[int, Path, Callable[[], Any]], list[int | None]]:
    return run_ranks


@pytest.fixture(scope="session")
def on_ranks() -> Callable[[int, Path, Callable[[], Any]], None]:
    return start_ranks


def train(cfg: DictConfig, *, stop_at: int | None = None) -> Path:
    """Train as the command does, on the ranks there are; the run's folder."""
    folder = open_run_folder(cfg)
    training = build_training(cfg, folder)
    if stop_at is not None:
        training.trainer.fit_loop.epoch_loop.max_steps = stop_at
    training.trainer.fit(training.module, datamodule=training.data, ckpt_path=folder.resume_from(cfg.resume))
    return folder.path


@pytest.fixture(scope="session")
def fit() -> Callable[..., Path]:
    return train


def read_losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def losses() -> Callable[[Path], list[float]]:
    return read_losses
