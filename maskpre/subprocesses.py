"""Running a module of this package in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from maskpre.slurm import current_job

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# What launchers tell a rank about the others; the process is alone.
_OF_RANKS = re.compile(
    r"((LOCAL|GROUP|ROLE|NODE)_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(TORCHELASTIC|SLURM)_.*|MASKPRE_RUN_DIR"
)


def run_forwarding_signals(module: str, *arguments: str) -> int:
    """Run `python -m module` to its end on one rank, and hand on the signals that save or stop a run.

    In a SLURM job they all stop it, so that the job can be requeued. Returns the exit code, 128 plus the
    signal's number if one ended it. The process has a session of its own: each signal reaches it once.
    """
    env = {name: value for name, value in os.environ.items() if not _OF_RANKS.fullmatch(name)}
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=env, start_new_session=True)
    with _forwarding(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Send signals on to a process; at the end the earlier handlers come back."""
    before = {
        number: signal.signal(number, lambda received, frame: process.send_signal(forwarded_as(received)))
        for number in _FORWARDED
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def forwarded_as(number: int) -> int:
    """What a signal to this process is for the one it runs, which knows of no SLURM job."""
    return number if current_job() is None or number == signal.SIGINT else signal.SIGTERM


def stop_with_parent() -> None:
    """Send this process SIGTERM, so that it saves and stops, when the one that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
