"""Loader processes: how many, and how they meet signals."""

import os
import signal

_GRACE_SECONDS = 120


def available_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def initialise_worker(worker: int) -> None:
    """Leave signals to the main process.

    Ctrl-C, `scancel` and schedulers signal every process of a job. A worker that died of it, or ran a
    handler inherited from the main process, would break the save the main process is about to make.
    After SIGTERM the worker stays for two minutes at most, so that a stuck one can't block the exit.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS) and None)
