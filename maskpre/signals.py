"""Signals that ask a run to save, or to save and stop."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from maskpre.slurm import current_job

SAVE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SignalNotes:
    """Notes which signals came; whoever trains reads the notes between two steps.

    Nothing is done in the handler: it runs at any place of any rank, where a save would wait for ranks that
    are somewhere else.

    Attributes:
        save: a signal asked for a checkpoint.
        stop: the signal that asked to stop as well, if one did.
    """

    def __init__(self) -> None:
        self.save = False
        self.stop: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self, numbers: Sequence[signal.Signals]) -> None:
        """Take over some signals until `restore`."""
        for number in numbers:
            before = signal.signal(number, self._note)
            self._before.setdefault(number, before)

    def restore(self) -> None:
        """Give all signals back to who had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        self.save = True
        job = current_job()
        if received in STOP_SIGNALS or job is not None:
            self.stop = received
        if received is signal.SIGINT or (received is signal.SIGTERM and job is None):
            # The second one stops at once. A scheduler sends several and means them all alike.
            signal.signal(received, self._before.get(received) or signal.SIG_DFL)


def notes() -> SignalNotes:
    """The notes of who listens to this process's signals, else new ones."""
    listening = getattr(signal.getsignal(SAVE_SIGNALS[0]), "__self__", None)
    return listening if isinstance(listening, SignalNotes) else SignalNotes()


def listen_early() -> SignalNotes:
    """Note from now on what would end a process that is not training yet.

    In a SLURM job that includes SIGTERM: the run saves its first step and is requeued. Elsewhere SIGTERM and
    Ctrl-C still end what is being prepared.
    """
    early = notes()
    early.listen(SAVE_SIGNALS if current_job() is None else (*SAVE_SIGNALS, signal.SIGTERM))
    return early


@contextmanager
def noting_early() -> Iterator[None]:
    """As `listen_early`, until the end of the block."""
    early = listen_early()
    try:
        yield
    finally:
        early.restore()
