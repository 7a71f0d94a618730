"""A progress bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINES = 10


@contextmanager
def progress(title: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many of `total` items are done; call what it gives with the number of new ones."""
    console = Console(stderr=True)
    with _bar(console, title, total) if console.is_terminal else _lines(title, total) as advance:
        yield advance


@contextmanager
def _bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _lines(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """One line per tenth of the way."""
    start, done = time.monotonic(), 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if done * _LINES // total > before * _LINES // total:
            elapsed = time.monotonic() - start
            left = elapsed * (total - done) / done
            print(f"{title}: {done}/{total}, {elapsed:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)

    yield advance
