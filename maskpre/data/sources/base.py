"""A source: random access to undecoded samples by global index."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskpre.data.retry import Backoff
from maskpre.errors import UserError

BACKOFF = Backoff(retries=4, seconds=0.5)
"""For disks: a shared one may be away for some seconds."""


class Media(NamedTuple):
    """A kind of file: what messages call one, and the file name endings (any case) that count as it."""

    noun: str
    suffixes: tuple[str, ...]


PICTURES = Media("picture", (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".npy"))
_MP4_KIND = (".mp4", ".m4v", ".mov", ".3gp")
_MPEG_KIND = (".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts")
VIDEOS = Media("video", (*_MP4_KIND, *_MPEG_KIND, ".mkv", ".webm", ".ogv", ".avi", ".flv", ".wmv", ".asf"))


class BadSampleError(Exception):
    """One sample can't be read or decoded; the message says why, without naming the sample."""


class RawSample(NamedTuple):
    """One undecoded sample; `label` is -1 where there is none."""

    key: str
    data: NDArray[np.uint8]
    label: int


class Source(ABC):
    """A finite, ordered set of samples that are read one by one, from any process.

    `labels` holds the class number of every sample, -1 where there is none; `classes` the class names,
    empty for unlabelled data.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> RawSample:
        """The undecoded sample; raises BadSampleError if its bytes can't be had, also after some time."""
        try:
            data = BACKOFF.read(lambda: self._read_bytes(index), what=self.key(index))
        except OSError as error:
            raise BadSampleError(f"can't be read: {error.strerror or error}") from error
        if data.size == 0:
            raise BadSampleError("is empty (0 bytes)")
        return RawSample(self.key(index), data, int(self.labels[index]))

    @abstractmethod
    def _read_bytes(self, index: int) -> NDArray[np.uint8]:
        """The bytes of the picture file, writable; raises OSError if they can't be read."""

    @abstractmethod
    def key(self, index: int) -> str:
        """What names the sample to its owner: a file, or a shard and the key inside it."""

    @abstractmethod
    def describe(self) -> str:
        """One line for logs: what and how much it is."""

    def require_labels(self) -> None:
        """UserError unless every sample has a class."""
        missing = int((self.labels < 0).sum())
        if missing:
            raise UserError(f"{missing} of {len(self)} samples have no label: {self.describe()}")


@dataclass(frozen=True, eq=False)
class StringTable:
    """An immutable list of strings held in two arrays, so that forked workers share its memory."""

    blob: bytes
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, strings: Iterable[str]) -> "StringTable":
        """The table of `strings`; names that are no valid UTF-8 survive."""
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        return cls(b"".join(encoded), np.cumsum([len(string) for string in encoded], dtype=np.int64))

    @classmethod
    def concatenate(cls, tables: Sequence["StringTable"]) -> "StringTable":
        """All strings of all tables, in order."""
        starts = np.cumsum([0, *(len(table.blob) for table in tables[:-1])])
        ends = [table.ends + start for table, start in zip(tables, starts, strict=True)]
        return cls(b"".join(table.blob for table in tables), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return self.blob[start : int(self.ends[index])].decode("utf-8", "surrogateescape")
