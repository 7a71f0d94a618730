"""One rank's failure ends all ranks, soon and with one message: collectives alone would wait for the dead."""

import os
import socket
import sys
import threading
import time
import traceback
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from torch._C._distributed_c10d import TCPStore

from maskpre.errors import UserError

# What the others' collectives say when a rank is gone, whatever took it.
_FOLLOWS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")

_FAILED, _SEEN = "failed", "seen"
_DONE = b"done"


def follows_from_another(error: BaseException | None) -> bool:
    """Whether an error only says that another rank can't be reached."""
    while error is not None:
        if isinstance(error, dist.DistError):
            return True
        if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _FOLLOWS):
            return True
        error = error.__cause__ or error.__context__
    return False


def stop_watching(trainer: Trainer) -> None:
    """Let ranks end each in its own time: all of them must have agreed to."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RankWatch):
            callback.leave()


class RankWatch(Callback):
    """Every rank shows each second that it is alive; who doesn't for `patience_s` seconds has failed.

    A rank that raises an error says so. The first failure ends all ranks with exit code 1: the first rank
    prints it, or the second one if it is the first that is gone. Seconds are counted in looks, so that ranks
    which were all stopped together go on together.
    """

    def __init__(self, *, patience_s: int = 25) -> None:
        self.patience_s = patience_s
        self.rank, self.world = 0, 1
        self._store: TCPStore | None = None
        self._all_done = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unchanged: dict[int, tuple[bytes, int]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Meet the other ranks and start to watch."""
        self.rank, self.world = trainer.global_rank, trainer.world_size
        if self.world == 1 or self._store is not None:
            return
        # What has been trained is scored under a watch of its own.
        self._all_done, self._stop, self._unchanged = threading.Event(), threading.Event(), {}
        environment: Any = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        self._store = self._meet(environment.main_address, trainer)
        where = f"process {os.getpid()} on {socket.gethostname()}"
        self._store.set(f"who/{self.rank}", f"rank {self.rank} ({where})")
        self._store.set(self._beat(self.rank), "0")
        trainer.strategy.barrier()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="rank-watch")
        self._thread.start()

    def _meet(self, host: str, trainer: Trainer) -> TCPStore:
        """A store of its own: the process group's is busy while a rank waits in it."""
        timeout = timedelta(seconds=self.patience_s)
        made = None
        if self.rank == 0:
            made = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        port: int = trainer.strategy.broadcast(None if made is None else made.port)  # type: ignore[assignment]
        return made or TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)

    @staticmethod
    def _beat(rank: int) -> str:
        return f"beat/{rank}"

    def _watch(self) -> None:
        looks = 0
        try:
            while not self._stop.wait(1.0):
                looks += 1
                self._look(looks)
        except RuntimeError:
            if not self._stop.is_set():
                gone = "rank 0 is gone: it was killed, or its machine can't be reached"
                self._end(gone if self.rank == 1 else None)

    def _look(self, looks: int) -> None:
        """Show this rank, and see whether any other has failed."""
        store = self._store
        assert store is not None
        store.set(self._beat(self.rank), str(looks))
        if store.check([_FAILED]):
            told = store.get(_FAILED).decode()
            if self.rank != 0:
                store.add(_SEEN, 1)
            self._end(told if self.rank == 0 else None)
        watched = range(1, self.world) if self.rank == 0 else range(1)
        beats = store.multi_get([self._beat(rank) for rank in watched])
        for rank, beat in zip(watched, beats, strict=True):
            self._judge(rank, beat)
        if self.rank == 0 and all(beat == _DONE for beat in beats):
            self._all_done.set()

    def _judge(self, rank: int, beat: bytes) -> None:
        before, looks = self._unchanged.get(rank, (b"", 0))
        looks = looks + 1 if beat == before and beat != _DONE else 0
        self._unchanged[rank] = (beat, looks)
        if looks >= self.patience_s:
            assert self._store is not None
            who = self._store.get(f"who/{rank}").decode()
            self._tell(f"{who} gave no sign of life for {looks} s: it was killed, or it hangs")
            self._end(self._store.get(_FAILED).decode() if self.rank <= 1 else None, gone=1)

    def _tell(self, message: str) -> None:
        """Let all ranks know; the first message counts."""
        assert self._store is not None
        self._store.compare_set(_FAILED, "", message)

    def _end(self, message: str | None, *, gone: int = 0) -> None:
        """Leave at once: the main thread may wait for one of the `gone` ranks."""
        if message is not None:
            print(f"{message}; all ranks stop", file=sys.stderr, flush=True)
        if self.rank == 0:
            self._wait_for_others(self.world - 1 - gone)
        os._exit(1)

    def _wait_for_others(self, num: int) -> None:
        """The store ends with this process: give `num` others the time to read it."""
        deadline = time.monotonic() + 5
        try:
            while self._store is not None and time.monotonic() < deadline:
                if self._store.add(_SEEN, 0) >= num:
                    return
                time.sleep(0.2)
        except RuntimeError:
            return

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others, or wait to be told if the error is another rank's."""
        if self._store is None or isinstance(exception, KeyboardInterrupt | SystemExit):
            return
        if follows_from_another(exception):
            # The watch ends this process when it knows whose fault it was.
            time.sleep(self.patience_s + 20)
            return
        short = str(exception) if isinstance(exception, UserError) else repr(exception)
        who = self._store.get(f"who/{self.rank}").decode()
        if self.rank != 0 and not isinstance(exception, UserError):
            traceback.print_exception(exception)
        self._tell(f"{who} failed: {short}")
        if self.rank == 0:
            self._stop.set()
            print(f"{who} failed; all ranks stop", file=sys.stderr, flush=True)
            self._wait_for_others(self.world - 1)
            return
        # Its own thread ends this process when it has read the message, too.
        self._stop.wait(5)
        os._exit(1)

    def leave(self) -> None:
        """Watch no longer."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave; the first rank, which holds the store, as the last."""
        if self._store is None:
            return
        if self.rank == 0:
            self._all_done.wait()
        self.leave()
        if self.rank != 0:
            self._store.set(self._beat(self.rank), _DONE.decode())
        self._store = None
