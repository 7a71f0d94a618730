"""Trying again what may succeed a moment later."""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

# What a file server or network answers while it is restarting, moving or overloaded.
TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EINTR,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EREMOTEIO,
    }
)


@dataclass(frozen=True)
class Backoff:
    """Tries again `retries` times, first after `seconds`, then after twice as long each time."""

    retries: int
    seconds: float

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries must be at least 0, got {self.retries}")
        if self.seconds < 0:
            raise ValueError(f"the wait before a retry must be at least 0 seconds, got {self.seconds}")

    def waits(self) -> Iterator[float]:
        """The pauses between attempts."""
        for attempt in range(self.retries):
            yield self.seconds * 2**attempt

    def read(self, function: Callable[[], T], *, what: str) -> T:
        """What `function` gives; raises its OSError if that is none that passes, or doesn't pass."""
        for wait in self.waits():
            try:
                return function()
            except OSError as error:
                if error.errno not in TRANSIENT:
                    raise
                log.warning("%s: %s; trying again in %g s", what, error.strerror, wait)
                time.sleep(wait)
        return function()
