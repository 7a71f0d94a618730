"""A run that learns nothing and writes down every batch it sees: step, hash of all tensors, rank's view."""

import hashlib
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from maskpre.data import FolderData
from maskpre.data.transforms import CentreCrop, RandomResizedCrop


class Recorder(LightningModule):
    """One weight; records batches; kills the process without warning before `kill_at` micro-batches end."""

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
        return self.weight * batch["image"].float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_data(pictures: Path, *, workers: int = 0, batch_size: int = 8, seed: int = 3) -> FolderData:
    return FolderData(
        root=str(pictures),
        image_size=16,
        channels=3,
        mean=[0.5] * 3,
        std=[0.25] * 3,
        batch_size=batch_size,
        num_workers=workers,
        transform=RandomResizedCrop(size=16),
        eval_transform=CentreCrop(size=16),
        seed=seed,
    )


def fit(
    data: FolderData,
    folder: Path,
    *,
    steps: int = 20,
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


if __name__ == "__main__":
    pictures, folder, workers, kill_at = sys.argv[1:]
    torch.set_num_threads(1)
    fit(make_data(Path(pictures), workers=int(workers)), Path(folder), kill_at=int(kill_at))
