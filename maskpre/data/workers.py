"""Helper processes: how many, how they meet signals, and mapping a function over them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

_GRACE_SECONDS = 120

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def initialise_worker(worker: int) -> None:
    """Leave signals to the main process, in a loader's worker.

    Ctrl-C, `scancel` and schedulers signal every process of a job. A worker that died of it, or ran a
    handler inherited from the main process, would break the save the main process is about to make.
    After SIGTERM the worker stays for two minutes at most, so that a stuck one can't block the exit.
    """
    _ignore_signals()
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS) and None)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def parallel(function: Callable[[T], R], items: Sequence[T], *, processes: int) -> Iterator[R]:
    """Results of `function` for all items, in order, computed in `processes` processes (1: in this one).

    When the caller stops early, items not yet begun are given up. The helpers die with this process.
    """
    if min(processes, len(items)) <= 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(
        min(processes, len(items)), initializer=_initialise_helper, initargs=(os.getpid(),)
    )
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _initialise_helper(parent: int) -> None:
    _ignore_signals()
    torch.set_num_threads(1)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
