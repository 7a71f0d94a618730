"""One wandb run per run folder, offline where nobody is logged in."""

import io
from pathlib import Path

import pytest
import wandb

from maskpre.errors import UserError
from maskpre.loggers.wandb import wandb_logger
from maskpre.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _finish_runs() -> object:
    wandb.teardown()  # what the environment says is read once in a process
    yield
    wandb.finish()
    wandb.teardown()


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


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Somebody is logged in, at a server where nobody answers."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("login")
def test_a_server_that_does_not_answer_keeps_no_run_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = wandb_logger(folder=RunFolder(tmp_path), patience=1.0)
    assert logger.experiment.offline
    assert "127.0.0.1:9 does not answer" in caplog.text
    assert "logging offline, to be uploaded later" in caplog.text


@pytest.mark.usefixtures("login")
def test_who_insists_on_being_online_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mode is online, but 127.0.0.1:9 does not answer"):
        wandb_logger(folder=RunFolder(tmp_path), mode="online", patience=1.0)


def test_a_server_that_answers_with_an_error_keeps_no_run_from_starting(
    tmp_path: Path, login: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    init = wandb.init

    def refuse(**settings: object) -> object:
        if settings["mode"] != "offline":
            raise wandb.CommError("503 Service Unavailable")
        return init(**settings)

    login.setattr(wandb, "init", refuse)
    login.setattr("socket.create_connection", lambda *args, **kwargs: io.BytesIO())
    logger = wandb_logger(folder=RunFolder(tmp_path))
    assert logger.experiment.offline
    assert "503 Service Unavailable; logging offline" in caplog.text
