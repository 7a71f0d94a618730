"""Kill -9 and resume: every later batch is the uninterrupted run's, bit for bit."""

import hashlib
import logging
import multiprocessing
import os
import random
import signal
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from maskpre.data import FolderData, PretrainData, VideoFolderData
from maskpre.data.multi_scale import MultiScaleCrop
from maskpre.data.transforms import CentreCrop, RandomResizedCrop

STEPS = 20


class Recorder(LightningModule):
    """One weight, no learning; writes down "step batch hash" of every batch and dies at batch `kill_at`."""

    def __init__(self, *, record: Path, kill_at: int | None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.record = record
        self.kill_at = kill_at

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        digest = hashlib.sha256()
        for name in sorted(batch):
            digest.update(batch[name].numpy().tobytes())
        with self.record.open("a") as file:
            file.write(f"{self.trainer.global_step} {batch_idx} {digest.hexdigest()[:16]}\n")
        if batch_idx == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.weight * batch["index"].float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_data(root: Path, *, workers: int = 0, batch_size: int = 8, seed: int = 3) -> PretrainData:
    """Pictures, or two crops each of clips of videos, by what the folder holds."""
    settings = {
        "root": str(root),
        "image_size": 16,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "batch_size": batch_size,
        "num_workers": workers,
        "eval_transform": CentreCrop(size=16),
        "seed": seed,
    }
    if any(root.rglob("*.mp4")):
        crop = MultiScaleCrop(size=16, flip=0.5)
        return VideoFolderData(**settings, transform=crop, num_frames=4, frame_stride=2, repeats=2)
    return FolderData(**settings, transform=RandomResizedCrop(size=16))


def fit(
    data: PretrainData,
    folder: Path,
    *,
    steps: int = STEPS,
    accumulate: int = 1,
    save_every: int = 3,
    kill_at: int | None = None,
    resume: Path | None = None,
) -> list[str]:
    """Train in `folder`; the record of this call: "step batch hash" per micro-batch."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "record.txt"
    record.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            accumulate_grad_batches=accumulate,
            callbacks=[ModelCheckpoint(folder, save_last=True, every_n_train_steps=save_every, save_top_k=0)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Recorder(record=record, kill_at=kill_at), datamodule=data, ckpt_path=resume)
    assert trainer.global_step == steps
    return record.read_text().splitlines()


def hashes(record: list[str]) -> list[str]:
    return [line.split()[-1] for line in record]


@pytest.fixture(scope="module", params=["pictures", "videos"])
def samples(request) -> Path:
    """A folder of either."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def whole(samples, tmp_path_factory) -> list[str]:
    """The record of the uninterrupted run."""
    return fit(make_data(samples), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def killed(samples, tmp_path_factory) -> dict[int, Path]:
    """Folders of two runs that were killed at a random batch, by their number of workers."""
    folders = {workers: tmp_path_factory.mktemp(f"killed{workers}") for workers in (0, 2)}
    for workers, folder in folders.items():
        arguments = (samples, folder, workers, random.randrange(4, STEPS - 1))
        process = multiprocessing.get_context("fork").Process(target=run_until_killed, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    return folders


def run_until_killed(samples: Path, folder: Path, workers: int, kill_at: int) -> None:
    torch.set_num_threads(1)
    fit(make_data(samples, workers=workers), folder, kill_at=kill_at)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 2), (2, 0), (2, 2)])
def test_a_killed_run_goes_on_exactly(samples, tmp_path, whole, killed, before, after):
    folder = killed[before]
    recorded = (folder / "record.txt").read_text().splitlines()
    assert recorded == whole[: len(recorded)]
    rest = fit(make_data(samples, workers=after), tmp_path, resume=folder / "last.ckpt")
    done = int(rest[0].split()[0])
    assert 0 < done <= len(recorded)
    assert done % 3 == 0
    assert rest == whole[done:]


def test_a_finished_run_can_be_extended(samples, tmp_path, whole):
    fit(make_data(samples), tmp_path / "short", steps=12)
    rest = fit(make_data(samples), tmp_path / "long", resume=tmp_path / "short" / "last.ckpt")
    assert hashes(rest) == hashes(whole[12:])


@pytest.mark.parametrize("after", [2, 4])
def test_accumulation_can_change_at_the_resume(pictures, tmp_path, after):
    other = fit(make_data(pictures), tmp_path / "whole", accumulate=after)
    fit(make_data(pictures), tmp_path / "before", steps=9)
    resume = tmp_path / "before" / "last.ckpt"
    rest = fit(make_data(pictures), tmp_path / "after", accumulate=after, resume=resume)
    assert hashes(rest) == hashes(other[9 * after :])
    assert [line.split()[0] for line in rest] == [line.split()[0] for line in other[9 * after :]]


def test_another_order_is_announced(pictures, tmp_path, caplog):
    fit(make_data(pictures), tmp_path / "before", steps=9)
    with caplog.at_level(logging.WARNING, logger="maskpre"):
        data = make_data(pictures, seed=4, batch_size=4)
        fit(data, tmp_path / "after", resume=tmp_path / "before" / "last.ckpt")
    message = "can't continue the interrupted run's order of samples: batch_size 8 -> 4, seed 3 -> 4"
    assert message in caplog.text
