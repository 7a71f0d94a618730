"""Signals on their way to a process that trains a stage."""

import signal

import pytest

from maskpre.subprocesses import forwarded_as


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_what_makes_a_slurm_job_leave_stops_its_stage(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert forwarded_as(number) == number
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert forwarded_as(number) == signal.SIGTERM
    assert forwarded_as(signal.SIGINT) == signal.SIGINT
