"""Renders collections of samples into tar shards; kept free of torch, as worker processes import it."""

import io
import multiprocessing
import os
import signal
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8


class Rendered(NamedTuple):
    """One sample: its class, the ending and content of its file, and the pixels it was made from."""

    label: int
    ending: str
    content: bytes
    pixels: UInt8[np.ndarray, "*any size size 3"]


@dataclass(frozen=True, kw_only=True)
class Collection(ABC):
    """Numbered samples without end, each rendered from its number and the collection's `seed` alone."""

    seed: int
    image_size: int

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    @abstractmethod
    def pictures_per_sample(self) -> int:
        """How many pictures of `image_size` squared a sample is made of."""

    @abstractmethod
    def make(self, index: int) -> Rendered:
        """Sample `index`."""


@dataclass(frozen=True, kw_only=True)
class RenderJob:
    """Which samples of a collection go into which file: first_index, first_index + 1, ...

    Members are named by the sample's number within its split, which starts at `first_key`.
    """

    path: Path
    collection: Collection
    first_index: int
    first_key: int
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardSummary:
    """A written shard's name and size, and sums over its pixels, scaled to 0..1, per channel."""

    file: str
    count: int
    bytes: int
    class_counts: Int64[np.ndarray, "classes"]
    pixel_sum: Float64[np.ndarray, "3"]
    pixel_square_sum: Float64[np.ndarray, "3"]


def write_shard(job: RenderJob) -> ShardSummary:
    """Render the job's samples into a tar file of KEY.cls (ASCII label) and KEY.ENDING members.

    The file is byte for byte the same whenever and wherever it is written.
    """
    class_counts = np.zeros(len(job.collection.classes), np.int64)
    sums = np.zeros((2, 3))
    with job.path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(job.count):
                sample = job.collection.make(job.first_index + number)
                key = f"{job.first_key + number:08d}"
                _add(tar, f"{key}.cls", str(sample.label).encode("ascii"))
                _add(tar, f"{key}.{sample.ending}", sample.content)
                class_counts[sample.label] += 1
                sums += _pixel_sums(sample.pixels)
        file.flush()
        os.fsync(file.fileno())
    return ShardSummary(
        file=job.path.name,
        count=job.count,
        bytes=job.path.stat().st_size,
        class_counts=class_counts,
        pixel_sum=sums[0],
        pixel_square_sum=sums[1],
    )


def write_shards(
    jobs: Sequence[RenderJob], *, num_workers: int, on_samples: Callable[[int], None]
) -> list[ShardSummary]:
    """Write shards with `num_workers` processes (1: in this one), in any order, and summarise them in order.

    `on_samples` hears the number of samples of each completed shard. On an error or an interrupt the shards
    under way are ended, the others are not begun, and the error is raised.
    """
    if num_workers == 1:
        return [_write_and_tell(job, on_samples) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=_leave_interrupts) as pool:
        futures = [pool.submit(write_shard, job) for job in jobs]
        try:
            for future in as_completed(futures):
                on_samples(future.result().count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _write_and_tell(job: RenderJob, on_samples: Callable[[int], None]) -> ShardSummary:
    summary = write_shard(job)
    on_samples(summary.count)
    return summary


def _leave_interrupts() -> None:
    """Leave Ctrl-C, which reaches the whole process group, to the process that waits for the shards."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _pixel_sums(image: UInt8[np.ndarray, "*any size size 3"]) -> Float64[np.ndarray, "2 3"]:
    pixels = image.reshape(-1, 3) / 255.0
    return np.stack([pixels.sum(axis=0), (pixels * pixels).sum(axis=0)])
