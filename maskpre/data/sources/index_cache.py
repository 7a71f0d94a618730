"""Indices of shards, built in parallel and kept in files beside the shards."""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskpre.data.files import atomic_path, only_one
from maskpre.data.progress import progress
from maskpre.data.sources.base import BACKOFF, PICTURES, Media, StringTable
from maskpre.data.sources.tar_index import ShardIndex, scan_shard
from maskpre.data.workers import available_cores, parallel

_VERSION = 2
_FOLDER = ".maskpre-index"


@dataclass(frozen=True)
class IndexCache:
    """Finds, checks and writes index files: beside the shards, or below `fallback` if that is read-only.

    Of several processes, on one host or on several that share the disk, one builds what is missing and the
    others wait for it. Files appear whole, and an index that does not fit the shard's size and modification
    time is built anew. A shard that can't be opened has an empty index with a `problem`, which is not kept.
    """

    fallback: Path
    media: Media = PICTURES

    def load_all(self, shards: Sequence[Path]) -> list[ShardIndex]:
        """The index of each shard, building those that are missing in parallel."""
        indices = {shard: self.load(shard) for shard in shards}
        missing = [shard for shard, index in indices.items() if index is None]
        if missing:
            with only_one(
                self._lock(missing[0]), waiting="Another process indexes the shards; waiting for it"
            ):
                indices.update((shard, self.load(shard)) for shard in missing)
                missing = [shard for shard, index in indices.items() if index is None]
                indices.update(zip(missing, self._build_all(missing), strict=True))
        return [index for index in indices.values() if index is not None]

    def load(self, shard: Path) -> ShardIndex | None:
        """The cached index of `shard`, or None if there is none that fits."""
        for path in (self._beside(shard), self._elsewhere(shard)):
            index = _read(path, shard)
            if index is not None:
                return index
        return None

    def build(self, shard: Path) -> ShardIndex:
        """Scan `shard` and keep the index."""
        try:
            stamp = _stamp(shard)
            index = BACKOFF.read(lambda: scan_shard(shard, self.media), what=str(shard))
        except OSError as error:
            return ShardIndex.empty(problem=f"it can't be read: {error.strerror or error}")
        try:
            _write(self._beside(shard), index, stamp)
        except OSError:
            _write(self._elsewhere(shard), index, stamp)
        return index

    def _build_all(self, shards: list[Path]) -> list[ShardIndex]:
        built: list[ShardIndex] = []
        if shards:
            with progress(f"Indexing {len(shards)} shards", total=len(shards)) as advance:
                for index in parallel(self.build, shards, processes=available_cores()):
                    built.append(index)
                    advance(1)
        return built

    def _lock(self, shard: Path) -> Path:
        """A file to lock while indices are built: where they will be."""
        lock = self._beside(shard).with_name("lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError:
            return self._elsewhere(shard).with_name("lock")
        return lock

    def _beside(self, shard: Path) -> Path:
        return shard.parent / _FOLDER / self._name(shard)

    def _elsewhere(self, shard: Path) -> Path:
        folder = hashlib.blake2b(os.fsencode(shard.parent.resolve()), digest_size=8).hexdigest()
        return self.fallback / "index" / folder / self._name(shard)

    def _name(self, shard: Path) -> str:
        return f"{shard.name}.npz" if self.media == PICTURES else f"{shard.name}.{self.media.noun}.npz"


def _stamp(shard: Path) -> list[int]:
    status = shard.stat()
    return [_VERSION, status.st_size, status.st_mtime_ns]


def _write(path: Path, index: ShardIndex, stamp: list[int]) -> None:
    header = {"stamp": stamp, "without_file": index.without_file, "problem": index.problem}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            header=np.array(json.dumps(header)),
            keys=np.frombuffer(index.keys.blob, dtype=np.uint8),
            key_ends=index.keys.ends,
            offsets=index.offsets,
            sizes=index.sizes,
            labels=index.labels,
        )


def _read(path: Path, shard: Path) -> ShardIndex | None:
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            arrays: dict[str, Any] = dict(file)
        header = json.loads(str(arrays["header"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if header["stamp"] != _stamp(shard):
        return None
    return ShardIndex(
        keys=StringTable(arrays["keys"].tobytes(), arrays["key_ends"]),
        offsets=arrays["offsets"],
        sizes=arrays["sizes"],
        labels=arrays["labels"],
        without_file=header["without_file"],
        problem=header["problem"],
    )
