"""Which samples each optimiser step sees: a pure function of (seed, step), not of ranks and workers."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from maskpre.data.randomness import raw_bits
from maskpre.errors import UserError

Shuffle = Literal["full", "block", "none"]

BLOCK_SIZE = 1024
BLOCKS_PER_WINDOW = 16


class Request(NamedTuple):
    """The samples of one micro-batch of one rank; all belong to one epoch."""

    indices: NDArray[np.int64]
    epoch: int


def epoch_order(*, num_samples: int, seed: int, epoch: int, shuffle: Shuffle) -> NDArray[np.int64]:
    """The order of all samples in `epoch`.

    "full" is a uniform permutation. "block" keeps reads near each other for slow disks: runs of 1024
    neighbouring samples are permuted, then samples mix only within windows of 16 such runs. "none" is
    the order of the source.
    """
    if shuffle == "none":
        return np.arange(num_samples)
    bits = raw_bits(seed=seed, stream="order", epoch=epoch, count=num_samples)
    if shuffle == "full":
        return np.argsort(bits, kind="stable")
    num_blocks = -(-num_samples // BLOCK_SIZE)
    block_bits = raw_bits(seed=seed, stream="order/blocks", epoch=epoch, count=num_blocks)
    window_of_block = np.argsort(np.argsort(block_bits, kind="stable"), kind="stable") // BLOCKS_PER_WINDOW
    return np.lexsort((bits, window_of_block[np.arange(num_samples) // BLOCK_SIZE]))


def micro_batch_size(global_batch: int, *, world: int, micro_batches: int) -> int:
    """Samples that one rank takes at once; UserError if the global batch can't be shared out evenly."""
    share, rest = divmod(global_batch, world * micro_batches)
    if rest:
        raise UserError(
            f"data.batch_size ({global_batch}) must be a multiple of the number of ranks ({world}) times "
            f"the number of accumulated micro-batches ({micro_batches}), here {world * micro_batches}"
        )
    return share


class GlobalOrder(Sampler[Request]):
    """One stream of requests over a whole run of `num_steps` optimiser steps, seen from one rank.

    The global batch of a step is cut into `world` contiguous shares, each share into `micro_batches`
    parts (gradient accumulation). An epoch's incomplete last global batch is dropped. A resumed run
    starts at `start_step`; nothing else needs to be remembered.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        global_batch: int,
        seed: int,
        num_steps: int,
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
        micro_batches: int = 1,
        shuffle: Shuffle = "full",
    ) -> None:
        if num_samples < global_batch:
            raise UserError(
                f"the data set has {num_samples} samples, fewer than one global batch of {global_batch}: "
                f"set data.batch_size to at most {num_samples}"
            )
        micro_batch_size(global_batch, world=world, micro_batches=micro_batches)
        self.num_samples = num_samples
        self.global_batch = global_batch
        self.seed = seed
        self.num_steps = num_steps
        self.start_step = start_step
        self.rank = rank
        self.world = world
        self.micro_batches = micro_batches
        self.shuffle: Shuffle = shuffle
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in one pass over the data."""
        return self.num_samples // self.global_batch

    def __len__(self) -> int:
        """Micro-batches from `start_step` to the end of the run."""
        return max(0, self.num_steps - self.start_step) * self.micro_batches

    def global_request(self, step: int) -> Request:
        """The global batch of optimiser step `step`, all ranks together."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = epoch_order(
                num_samples=self.num_samples, seed=self.seed, epoch=epoch, shuffle=self.shuffle
            )
            self._epoch = epoch
        start = position * self.global_batch
        return Request(self._order[start : start + self.global_batch], epoch)

    def __iter__(self) -> Iterator[Request]:
        """Yield this rank's micro-batches, step after step."""
        for step in range(self.start_step, self.num_steps):
            batch = self.global_request(step)
            share = np.split(batch.indices, self.world)[self.rank]
            for part in np.split(share, self.micro_batches):
                yield Request(part, batch.epoch)


class SequentialOrder(Sampler[Request]):
    """Every `world`-th batch of the samples in the source's order, the last one smaller.

    `limit` takes at most that many samples, spread evenly.
    """

    def __init__(
        self, *, num_samples: int, batch_size: int, limit: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        count = num_samples if limit is None else min(limit, num_samples)
        chosen = np.arange(count) * num_samples // count if count else np.arange(0)
        starts = range(rank * batch_size, count, world * batch_size)
        self._requests = [Request(chosen[start : start + batch_size], 0) for start in starts]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)
