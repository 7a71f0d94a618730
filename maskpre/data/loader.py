"""The loader of a whole run, and the count of samples it had to leave out."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from maskpre.data.dataset import BadSample, Batch, Loaded
from maskpre.data.order import Request
from maskpre.data.workers import initialise_worker
from maskpre.errors import UserError

log = logging.getLogger(__name__)

_NAMED_SAMPLES = 100


class DataError(UserError):
    """Training data can't be read any more."""


class SkipCount:
    """Counts bad samples and names each one once in a warning: the first hundred, then the count alone.

    It is said at 1,000, 10,000 and so on, and by `close`.
    """

    def __init__(self) -> None:
        self.total = 0
        self._seen: set[int] = set()
        self._next_count = 10 * _NAMED_SAMPLES

    def add(self, bad: Sequence[BadSample]) -> None:
        """Note what a batch left out."""
        for sample in bad:
            self.total += 1
            if self.total == self._next_count:
                log.warning("%s bad samples skipped so far", f"{self.total:,}")
                self._next_count *= 10
            if sample.number in self._seen:
                continue
            self._seen.add(sample.number)
            if len(self._seen) <= _NAMED_SAMPLES:
                log.warning("skipped '%s': it %s (%d skipped so far)", sample.key, sample.reason, self.total)
            if len(self._seen) == _NAMED_SAMPLES:
                log.warning("%d bad samples were named; further ones are only counted", _NAMED_SAMPLES)

    def close(self) -> None:
        """Say the total, if anything was skipped."""
        if self.total:
            log.warning("%s bad samples skipped in all", f"{self.total:,}")


def _give_back(loaded: Any) -> Any:
    return loaded


class BatchLoader:
    """Batches made in `num_workers` processes (0: in this one).

    Not a torch DataLoader on purpose: Lightning must not exchange its sampler. `requests` say which
    samples come in which batch; None leaves that to an iterable `dataset`. `total` is the length shown
    to the trainer, which counts a resumed run's batches from the start although only the remaining ones
    are delivered.
    """

    def __init__(
        self,
        *,
        dataset: Dataset[Loaded],
        requests: Iterable[Request] | None,
        num_workers: int,
        skipped: SkipCount,
        total: int,
    ) -> None:
        self.dataset = dataset
        self.requests = requests
        self.num_workers = num_workers
        self.skipped = skipped
        self.total = total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; raises DataError when a batch can't be completed."""
        for loaded in self._torch_loader():
            self.skipped.add(loaded.bad)
            if loaded.failure:
                raise DataError(loaded.failure)
            if loaded.batch is not None:
                yield loaded.batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position follows from the optimiser step. Lightning wants the method to resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counterpart of `state_dict`."""

    def _torch_loader(self) -> DataLoader[Loaded]:
        return DataLoader(
            self.dataset,
            sampler=self.requests,
            batch_size=None,
            collate_fn=_give_back,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=initialise_worker,
            # Otherwise the loader seeds its workers from the global generator and shifts its state.
            generator=torch.Generator(),
        )
