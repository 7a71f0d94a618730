"""A rank that fails takes the others with it, soon, with one message that names it."""

import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist
from lightning import Callback
from omegaconf import DictConfig

from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.parallel.watch import RankWatch, follows_from_another
from maskpre.run_folder import open_run_folder
from maskpre.summary import find_callback
from maskpre.training import build_training

PATIENCE_S = 3


class FailAt(Callback):
    """Ends one rank after two steps."""

    def __init__(self, rank: int, way: str) -> None:
        self.rank, self.way = rank, way

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step != 2 or trainer.global_rank != self.rank:
            return
        if self.way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise UserError("the disk is on fire") if self.way == "user" else RuntimeError("a bug")


def train(cfg: DictConfig, rank: int, way: str) -> None:
    folder = open_run_folder(cfg)
    training = build_training(cfg, folder)
    find_callback(training.trainer, RankWatch).patience_s = PATIENCE_S
    training.trainer.callbacks.insert(0, FailAt(rank, way))
    training.trainer.fit(training.module, datamodule=training.data)


@pytest.mark.parametrize(
    ("rank", "way", "said"),
    [
        (
            1,
            "kill",
            r"rank 1 \(process \d+ on \S+\) gave no sign of life for 3 s: it was killed, or it hangs",
        ),
        (0, "kill", "rank 0 is gone: it was killed"),
        (1, "user", r"rank 1 \(.*\) failed: the disk is on fire"),
        (0, "bug", r"rank 0 \(.*\) failed"),
    ],
)
def test_all_ranks_end(
    tiny_mae: list[str], tmp_path: Path, try_ranks, rank: int, way: str, said: str
) -> None:
    options = [f"run_dir={tmp_path}", "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    cfg = compose([*tiny_mae, *options, "max_steps=500"])
    start = time.monotonic()
    codes = try_ranks(2, tmp_path, partial(train, cfg, rank, way))
    assert time.monotonic() - start < 45
    assert codes[rank] == (-signal.SIGKILL if way == "kill" else 1)
    assert codes[1 - rank] == 1
    told = "".join(path.read_text() for path in tmp_path.glob("rank*.log"))
    assert re.search(said, told), told
    assert told.count("all ranks stop") == 1, told
    assert ("Traceback" in told) == (way == "bug"), told


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (dist.DistNetworkError("timed out"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4"), True),
        (RuntimeError("shapes don't fit"), False),
        (UserError("the disk is full"), False),
    ],
)
def test_errors_of_others_are_told_from_own(error: Exception, follows: bool) -> None:
    assert follows_from_another(error) is follows
