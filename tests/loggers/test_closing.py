"""A requeued job ends its loggers quickly."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from maskpre.loggers import closing
from maskpre.loggers.closing import close_for_requeue
from maskpre.loggers.wandb import wandb_logger
from maskpre.run_folder import RunFolder


def test_a_wandb_run_is_preempted_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = wandb_logger(folder=RunFolder(tmp_path))
    run, said = logger.experiment, []
    monkeypatch.setattr(run, "mark_preempting", lambda: said.append("preempting"))
    finish = run.finish
    monkeypatch.setattr(run, "finish", lambda exit_code: said.append(exit_code) or finish(exit_code))
    close_for_requeue([logger])
    assert said == ["preempting", 1]


def test_a_logger_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "SECONDS", 0.1)
    started = time.monotonic()
    close_for_requeue([SimpleNamespace(finalize=lambda status: time.sleep(2))])
    assert time.monotonic() - started < 1
