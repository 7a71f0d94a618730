"""What every check yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig

Level = Literal["ok", "note", "error"]


@dataclass(frozen=True)
class Finding:
    """A line of the report: what was looked at, what was found, and whether a run would suffer from it.

    A "note" may be meant; with an "error" the run would fail.
    """

    what: str
    found: str
    level: Level = "ok"


Check = Callable[[DictConfig], Iterator[Finding]]
