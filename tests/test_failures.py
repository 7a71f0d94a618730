"""What goes wrong around a run ends it with one message; what it had is intact, and it goes on from there."""

import csv
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lightning import Callback

from maskpre.checkpoints.read import read_torch
from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.run_folder import RunFolder, open_run_folder
from maskpre.training import build_training

Mount = Callable[[str], Path]


class At(Callback):
    """Does something once, behind a step."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act

    def on_train_batch_end(self, trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            self.act()


def train(overrides: list[str], folder: Path, *callbacks: Callback) -> None:
    cfg = compose([*overrides, f"run_dir={folder}"])
    run = open_run_folder(cfg)
    with run.held():
        training = build_training(cfg, run)
        training.trainer.callbacks[:0] = callbacks
        training.trainer.fit(training.module, datamodule=training.data, ckpt_path=run.resume_from(cfg.resume))


def losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file)]


def saved_step(folder: Path) -> int:
    return int(read_torch(folder / "checkpoints/last.ckpt")["global_step"])


@pytest.fixture
def quick(tiny_mae: list[str]) -> list[str]:
    return [*tiny_mae, "callbacks.pictures=null", "callbacks.best=null"]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A small disk of its own; call it again to change its options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        again = "remount," if disk.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "tmpfs", str(disk)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if ended.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {ended.stderr.strip()}")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    quick: list[str], tmp_path: Path, mount: Mount
) -> None:
    overrides = [*quick, "callbacks.save.every_steps=4"]
    train(overrides, tmp_path / "whole")
    size = (tmp_path / "whole/checkpoints/last.ckpt").stat().st_size
    # Room for one checkpoint, but not for another beside it.
    run = mount(f"size={int(1.7 * size)}") / "run"
    with pytest.raises(UserError, match=r"last\.ckpt can't be written: the disk is full"):
        train(overrides, run)
    assert saved_step(run) == 4
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert losses(run) == losses(tmp_path / "whole")[: len(losses(run))]
    mount(f"size={3 * size}")
    train(overrides, run)
    assert losses(run) == losses(tmp_path / "whole")


def test_a_folder_that_is_read_only_is_named_before_anything_starts(
    quick: list[str], tmp_path: Path, mount: Mount
) -> None:
    disk = mount("size=1m")
    (disk / "run").mkdir()
    mount("ro")
    with pytest.raises(UserError, match=rf"run folder {disk}/run can't be written: Read-only file system"):
        train(quick, disk / "run")


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_vanish_end_the_run_after_a_checkpoint(
    quick: list[str], picture_folders: Path, tmp_path: Path, workers: int
) -> None:
    pictures, away = tmp_path / "pictures", tmp_path / "away"
    shutil.copytree(picture_folders / "train", pictures)
    data = ["data=folder", f"data.root={pictures}", "data.transform.interpolation=bilinear"]
    kept = [line for line in quick if not line.startswith(("data.cache_dir", "data.num_"))]
    overrides = [*kept, *data, f"data.num_workers={workers}"]
    train(overrides, tmp_path / "whole")
    vanish = At(5, lambda: pictures.rename(away))
    with pytest.raises(UserError, match=rf"samples in a row can't be read \(folder {pictures}: 48 pictures"):
        train(overrides, tmp_path / "parts", vanish)
    assert 5 <= saved_step(tmp_path / "parts") < 12
    assert saved_step(tmp_path / "parts") == int(losses(tmp_path / "parts")[-1][0])
    assert "can't be read" in RunFolder(tmp_path / "parts").status.message
    away.rename(pictures)
    train(overrides, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_second_run_in_a_folder_is_refused_and_changes_nothing(quick: list[str], tmp_path: Path) -> None:
    with open_run_folder(compose([*quick, f"run_dir={tmp_path}"])).held():
        before = (tmp_path / "config.yaml").read_text()
        with pytest.raises(
            UserError, match=rf"another run is writing to {tmp_path} \(process \d+ on .*, since"
        ):
            open_run_folder(compose([*quick, "seed=7", f"run_dir={tmp_path}"]))
        assert (tmp_path / "config.yaml").read_text() == before
