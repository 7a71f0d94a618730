"""Errors that are the user's to mend."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from omegaconf import DictConfig


class UserError(ValueError):
    """A mistake in configuration or data; commands print its message without a stack trace."""


def config_path(entry: DictConfig) -> str:
    """Dotted path where an entry really stands, also if it was reached through a reference."""
    return str(entry._get_full_key(""))


@dataclass(frozen=True)
class Problem:
    """What is wrong at a dotted path of a configuration, and where that value was set ("" if unknown)."""

    path: str
    message: str
    origin: str = ""

    def __str__(self) -> str:
        origin = f"\n      {self.origin}" if self.origin else ""
        return f"  {self.path}: {self.message}{origin}"


class ConfigError(UserError):
    """Everything that is wrong with a configuration."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n".join([f"{count} in the configuration:", *map(str, problems)]))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[Sequence[Problem]]]:
        return ConfigError, (self.problems,)


@contextmanager
def full_disks_named() -> Iterator[None]:
    """Turn what the system says of a disk that takes nothing more into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = f"{error.filename} can't be written: " if error.filename else ""
        raise UserError(f"{where}{error.strerror}") from error
