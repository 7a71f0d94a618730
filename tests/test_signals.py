"""Signals are noted, and mean more in a SLURM job."""

import os
import signal
from collections.abc import Iterator

import pytest

from maskpre.signals import SAVE_SIGNALS, STOP_SIGNALS, notes, noting_early

ALL = (*SAVE_SIGNALS, *STOP_SIGNALS)


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    # A shell's background jobs start with interrupts ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in ALL}
    yield
    assert {number: signal.getsignal(number) for number in ALL} == before
    signal.signal(signal.SIGINT, inherited)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "stops", "stops_job"),
    [
        (signal.SIGUSR1, False, True),
        (signal.SIGUSR2, False, True),
        (signal.SIGTERM, True, True),
        (signal.SIGINT, True, True),
    ],
)
@pytest.mark.parametrize("job", [False, True])
def test_what_a_signal_asks_for(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, stops: bool, stops_job: bool, job: bool
) -> None:
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", "1")
    noted = notes()
    noted.listen(ALL)
    try:
        send(number)
        assert noted.save
        assert noted.stop == (number if (stops_job if job else stops) else None)
    finally:
        noted.restore()


def test_a_second_ctrl_c_stops_at_once() -> None:
    noted = notes()
    noted.listen(ALL)
    try:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    finally:
        noted.restore()


def test_a_scheduler_may_say_it_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with noting_early():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert notes().stop is signal.SIGTERM


def test_what_came_early_is_not_forgotten() -> None:
    with noting_early():
        send(signal.SIGUSR1)
        later = notes()
        later.listen(ALL)
        assert later.save
        assert later.stop is None


def test_before_training_ctrl_c_ends_what_is_being_prepared() -> None:
    with pytest.raises(KeyboardInterrupt), noting_early():
        send(signal.SIGINT)
