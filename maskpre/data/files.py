"""Writing files whole or not at all, by one process at a time."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def locked(lock_file: Path, *, timeout: float) -> Iterator[None]:
    """Hold a lock against other processes, on shared file systems against other hosts too.

    The system releases it should the process die. Raises Timeout after that many seconds (-1: never), OSError
    if the file can't be written. Where a file system can't lock, a warning says so and nothing is held.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=timeout)
    except NotImplementedError:
        log.warning("the file system of '%s' has no locks: nothing keeps other processes away", lock_file)
        yield
        return
    try:
        yield
    finally:
        lock.release()


@contextmanager
def only_one(lock_file: Path, *, waiting: str) -> Iterator[None]:
    """Hold a lock as `locked` does, saying `waiting` on stderr if another process has it."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock_file, timeout=0))
        except Timeout:
            print(waiting, file=sys.stderr)
            stack.enter_context(locked(lock_file, timeout=-1))
        yield


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A new empty file beside `target` that takes its place, synced to disk, when the block ends well."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        # Of a write the system doesn't say where it failed.
        if error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
