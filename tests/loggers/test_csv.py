"""The log of numbers survives interruptions."""

import errno
from pathlib import Path

import pytest

from maskpre.errors import UserError
from maskpre.loggers.csv import AppendingCSVLogger
from maskpre.run_folder import RunFolder


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().split()


def test_rows_are_appended_and_one_step_is_one_row(tmp_path: Path) -> None:
    logger = AppendingCSVLogger(folder=RunFolder(tmp_path))
    logger.log_metrics({"loss": 2.0}, step=1)
    logger.log_metrics({"loss": 1.0}, step=2)
    logger.log_metrics({"probe": 0.5}, step=2)
    assert lines(tmp_path) == ["step,loss,probe", "1,2.0,", "2,1.0,0.5"]


def test_a_resumed_run_drops_the_steps_it_repeats(tmp_path: Path) -> None:
    first = AppendingCSVLogger(folder=RunFolder(tmp_path))
    for step in (1, 2, 3):
        first.log_metrics({"loss": float(step)}, step=step)
    resumed = AppendingCSVLogger(folder=RunFolder(tmp_path))
    resumed.log_metrics({"loss": 9.0}, step=2)
    resumed.log_metrics({"loss": 8.0}, step=3)
    assert lines(tmp_path) == ["step,loss", "1,1.0", "2,9.0", "3,8.0"]


def test_a_crash_while_rewriting_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = AppendingCSVLogger(folder=RunFolder(tmp_path))
    logger.log_metrics({"loss": 1.0}, step=1)

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maskpre.loggers.csv.os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        logger.log_metrics({"new": 1.0}, step=2)
    assert lines(tmp_path) == ["step,loss", "1,1.0"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = AppendingCSVLogger(folder=RunFolder(tmp_path))
    logger.log_metrics({"loss": 1.0}, step=1)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("maskpre.loggers.csv.os.replace", full)
    with pytest.raises(UserError, match=r"metrics\.csv can't be written: No space left on device"):
        logger.log_metrics({"new": 1.0}, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_row_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    AppendingCSVLogger(folder=RunFolder(tmp_path)).log_metrics({"loss": 1.5}, step=11)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1")
    AppendingCSVLogger(folder=RunFolder(tmp_path)).log_metrics({"loss": 2.5}, step=12)
    assert lines(tmp_path) == ["step,loss", "11,1.5", "12,2.5"]
