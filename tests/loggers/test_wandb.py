"""One wandb run per run folder, offline where nobody is logged in."""

from pathlib import Path

import pytest
import wandb

from maskpre.loggers.wandb import wandb_logger
from maskpre.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _finish_runs() -> object:
    yield
    wandb.finish()


def test_a_resumed_run_has_the_same_id(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first = wandb_logger(folder=folder)
    first.log_metrics({"loss": 1.0, "samples": 16.0}, step=1)
    identity = first.experiment.id
    wandb.finish()
    assert wandb_logger(folder=folder).experiment.id == identity


def test_without_a_login_it_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    logger = wandb_logger(folder=RunFolder(tmp_path))
    assert logger.experiment.offline
    assert list(tmp_path.glob("wandb/offline-run-*"))
