"""The log of numbers survives interruptions."""

from pathlib import Path

import pytest

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
        raise OSError("power cut")

    monkeypatch.setattr("maskpre.loggers.csv.os.replace", crash)
    with pytest.raises(OSError, match="power cut"):
        logger.log_metrics({"new": 1.0}, step=2)
    assert lines(tmp_path) == ["step,loss", "1,1.0"]
