"""Where the pictures or videos lie inside WebDataset tar shards, found by reading the tar headers once."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskpre.data.sources.base import PICTURES, Media, StringTable
from maskpre.errors import UserError

_BLOCK = 512


@dataclass(frozen=True)
class ShardIndex:
    """The pictures, or the videos, of one shard in the order of the tar.

    Attributes:
        keys: WebDataset keys.
        offsets: where each file starts in the tar, bytes.
        sizes: bytes of each file.
        labels: class numbers from the `.cls` members, -1 where there is none.
        without_file: how many keys have no such member (and are left out).
        problem: empty, or why the rest of the shard could not be read.
    """

    keys: StringTable
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    without_file: int
    problem: str

    @classmethod
    def empty(cls, *, problem: str) -> "ShardIndex":
        """That of a shard which can't be read at all."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(StringTable.of(()), nothing, nothing, nothing, without_file=0, problem=problem)


@dataclass
class _Entry:
    offset: int = -1
    size: int = 0
    label: int = -1


def scan_shard(path: Path, media: Media = PICTURES) -> ShardIndex:
    """Index one shard; what follows a broken place is left out and `problem` says so.

    Raises OSError if the file can't be opened and UserError for a label that is no number.
    """
    entries: dict[str, _Entry] = {}
    problem = ""
    with path.open("rb") as file:
        try:
            for member in _members(file.fileno(), path):
                _add(entries, member, file.fileno(), path, media)
        except tarfile.TarError as error:
            problem = str(error)
    found = {key: entry for key, entry in entries.items() if entry.offset >= 0}
    return ShardIndex(
        keys=StringTable.of(found),
        offsets=np.array([entry.offset for entry in found.values()], dtype=np.int64),
        sizes=np.array([entry.size for entry in found.values()], dtype=np.int64),
        labels=np.array([entry.label for entry in found.values()], dtype=np.int64),
        without_file=len(entries) - len(found),
        problem=problem,
    )


def _members(descriptor: int, path: Path) -> Iterator[tarfile.TarInfo]:
    """The complete file members; raises tarfile.ReadError at the first broken place."""
    length = os.fstat(descriptor).st_size
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.offset_data + member.size > length:
                raise tarfile.ReadError(f"member '{member.name}' is cut off at byte {length}")
            if member.isfile():
                yield member
        # The tarfile module ends in silence at a damaged header; a whole archive ends with zeros or nothing.
        if any(os.pread(descriptor, _BLOCK, tar.offset)):
            raise tarfile.ReadError(f"damaged header at byte {tar.offset}")


def _add(
    entries: dict[str, _Entry], member: tarfile.TarInfo, descriptor: int, path: Path, media: Media
) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, _, extension = name.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    entry = entries.setdefault(key, _Entry())
    if f".{extension.lower()}" in media.suffixes:
        entry.offset, entry.size = member.offset_data, member.size
    elif extension == "cls":
        entry.label = _parse_label(os.pread(descriptor, member.size, member.offset_data), key, path)


def _parse_label(text: bytes, key: str, path: Path) -> int:
    try:
        label = int(text)
    except ValueError:
        raise UserError(
            f"shard '{path}': the label of '{key}' is {text[:40]!r}; .cls members must hold a "
            "class number (0, 1, ...)"
        ) from None
    return label
