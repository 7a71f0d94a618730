"""Ranks of torchrun agree on what the first one says."""

import time
from collections.abc import Iterator
from threading import Thread

import pytest
from torch.distributed import TCPStore

from maskpre.torchrun import said_by_first_rank


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The store that torchrun's agent keeps for its ranks."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    yield monkeypatch
    del store


def test_others_take_what_the_first_has_said(agent: pytest.MonkeyPatch) -> None:
    agent.setenv("RANK", "1")
    heard: list[str] = []
    other = Thread(target=lambda: heard.append(said_by_first_rank("folder", "b")))
    other.start()
    time.sleep(0.3)  # it has read the environment and waits
    assert heard == []
    agent.setenv("RANK", "0")
    assert said_by_first_rank("folder", "a") == "a"
    other.join(timeout=20)
    assert heard == ["a"]


def test_a_restart_takes_what_was_said_before(agent: pytest.MonkeyPatch) -> None:
    agent.setenv("RANK", "0")
    assert said_by_first_rank("folder", "a") == "a"
    assert said_by_first_rank("folder", "b") == "a"
    assert said_by_first_rank("another", "b") == "b"


def test_alone_everybody_says_what_he_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert said_by_first_rank("folder", "a") == "a"
