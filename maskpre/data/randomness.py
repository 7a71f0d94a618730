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


@lru_cache(maxsize=256)
def _key(seed: int, stream: str) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    return np.array([seed, int.from_bytes(digest, "little")], dtype=np.uint64)


def raw_bits(
    *, seed: int, stream: str, epoch: int, index: int = 0, attempt: int = 0, count: int
) -> NDArray[np.uint64]:
    """`count` uniform 64-bit words belonging to one stream of one sample in one epoch."""
    counter = (0, attempt, index, epoch)
    return np.random.Philox(key=_key(seed, stream), counter=counter).random_raw(count)


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
