"""Random numbers of the loaders: pure functions of (seed, stream name, epoch, sample index, attempt).

Nothing is drawn from a worker's state, so the number of workers, a resume or the number of ranks changes
no draw. Only the raw output of Philox4x64-10 (Salmon et al. 2011) is used: numpy guarantees that stream
across versions, which it does not for `Generator.permutation` or `Generator.integers`.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class _Keyed:
    """Philox under one key, set to a counter before every use.

    Making a new generator per draw would cost four times as much as the draw.
    """

    def __init__(self, seed: int, stream: str) -> None:
        digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
        key = np.array([seed, int.from_bytes(digest, "little")], dtype=np.uint64)
        self._generator = np.random.Philox(key=key)
        self._start = self._generator.state

    def words(self, counter: tuple[int, int, int, int], count: int) -> NDArray[np.uint64]:
        """The first `count` words from `counter` on."""
        self._start["state"]["counter"][:] = counter
        self._generator.state = self._start
        return self._generator.random_raw(count)


_keyed = lru_cache(maxsize=256)(_Keyed)


def raw_bits(
    *, seed: int, stream: str, epoch: int, index: int = 0, attempt: int = 0, count: int
) -> NDArray[np.uint64]:
    """`count` uniform 64-bit words belonging to one stream of one sample in one epoch."""
    return _keyed(seed, stream).words((0, attempt, index, epoch), count)


@dataclass(frozen=True, slots=True)
class Draws:
    """All random numbers one sample may use in one epoch, by stream name."""

    seed: int
    epoch: int
    index: int

    def uniform(self, stream: str, count: int) -> NDArray[np.float64]:
        """`count` numbers in [0, 1); the same call always returns the same numbers."""
        bits = raw_bits(seed=self.seed, stream=stream, epoch=self.epoch, index=self.index, count=count)
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
