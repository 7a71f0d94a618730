"""Event files in the run's folder."""

import sys
from pathlib import Path

import pytest

from maskpre.errors import UserError
from maskpre.loggers.tensorboard import tensorboard_logger
from maskpre.run_folder import RunFolder


def test_numbers_go_to_the_run_folder(tmp_path: Path) -> None:
    logger = tensorboard_logger(folder=RunFolder(tmp_path))
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.finalize("success")
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="logger=tensorboard needs the package: pip install tensorboard"):
        tensorboard_logger(folder=RunFolder(tmp_path))
