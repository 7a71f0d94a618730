"""WebDataset shards on a local or mounted disk, read at random through an index."""

import glob
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from webdataset.shardlists import expand_urls

from maskpre.data.sources.base import PICTURES, BadSampleError, Media, Source, StringTable
from maskpre.data.sources.index_cache import IndexCache
from maskpre.data.sources.tar_index import ShardIndex
from maskpre.errors import UserError

log = logging.getLogger(__name__)

OnError = Literal["skip", "raise"]

_OPEN_FILES = 64
_NAMED_PROBLEMS = 20


def is_remote(pattern: str) -> bool:
    """Whether `pattern` names pipes or URLs instead of files."""
    return any(url.startswith("pipe:") or "://" in url for url in expand_urls(pattern))


def expand_shards(pattern: str) -> list[Path]:
    """Paths meant by `pattern`: '::' between patterns, braces ('{000000..000099}') in order, globs sorted.

    Paths spelt out with braces need not exist. Raises UserError if a glob matches nothing.
    """
    paths: list[Path] = []
    for url in expand_urls(pattern):
        path = os.path.expanduser(url)
        matches = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
        if not matches:
            raise UserError(f"no shard matches '{path}'")
        paths.extend(Path(match) for match in matches)
    return list(dict.fromkeys(paths))


class ShardSource(Source):
    """All samples of the shards named by a pattern, in the order of the shards.

    Class names come from `classes`, or from "classes" in a dataset.json beside the first shard, or are
    the numbers up to the largest label. Shards that are missing or broken are left out, as far as they
    can't be read, with a warning; `on_error="raise"` makes that a UserError.
    """

    def __init__(
        self,
        *,
        shards: str,
        cache_dir: str | Path,
        on_error: OnError = "skip",
        classes: Sequence[str] | None = None,
        media: Media = PICTURES,
    ) -> None:
        self.pattern = shards
        self.media = media
        named = expand_shards(shards)
        self._shards = [shard for shard in named if shard.is_file()]
        problems = [f"shard '{shard}' does not exist" for shard in named if not shard.is_file()]
        if not self._shards:
            raise UserError(f"none of the {len(named)} shards of '{shards}' exists, e.g. '{named[0]}'")
        indices = IndexCache(Path(cache_dir).expanduser(), media).load_all(self._shards)
        problems += [
            f"shard '{shard}' is broken after {len(index.keys)} samples: {index.problem}"
            for shard, index in zip(self._shards, indices, strict=True)
            if index.problem
        ]
        _report(problems, len(named), on_error)
        self._fill(indices)
        if not len(self):
            raise UserError(f"the {len(self._shards)} shards of '{shards}' hold no {media.noun}")
        self.classes = self._class_names(classes)
        self._files = _OpenFiles()

    def _fill(self, indices: Sequence[ShardIndex]) -> None:
        self.labels = np.concatenate([index.labels for index in indices])
        self._keys = StringTable.concatenate([index.keys for index in indices])
        self._offsets = np.concatenate([index.offsets for index in indices])
        self._sizes = np.concatenate([index.sizes for index in indices])
        counts = [len(index.keys) for index in indices]
        self._shard_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        without = sum(index.without_file for index in indices)
        if without:
            log.warning("%d keys in '%s' have no %s and are left out", without, self.pattern, self.media.noun)

    def _class_names(self, classes: Sequence[str] | None) -> tuple[str, ...]:
        count = int(self.labels.max()) + 1
        described = self._shards[0].parent / "dataset.json"
        if classes is None and described.is_file():
            classes = json.loads(described.read_text()).get("classes")
        if classes is None:
            return tuple(str(number) for number in range(count))
        if count > len(classes):
            raise UserError(f"'{self.pattern}' has label {count - 1}, but there are {len(classes)} classes")
        return tuple(classes) if count else ()

    def key(self, index: int) -> str:
        """Shard and key inside it."""
        return f"{self._shards[self._shard_of[index]]}:{self._keys[index]}"

    def describe(self) -> str:
        """One line for logs."""
        classes = f"{len(self.classes)} classes" if self.classes else "unlabelled"
        return (
            f"shards {self.pattern}: {len(self)} {self.media.noun}s in {len(self._shards)} shards, {classes}"
        )

    def _read_bytes(self, index: int) -> NDArray[np.uint8]:
        data = np.empty(self._sizes[index], dtype=np.uint8)
        shard = self._shards[self._shard_of[index]]
        try:
            descriptor = self._files.descriptor(shard)
            count = os.preadv(descriptor, [data.data], int(self._offsets[index])) if data.size else 0
        except OSError:
            # A descriptor of before a file server's restart stays bad: the next attempt opens the file anew.
            self._files.forget(shard)
            raise
        if count != data.size:
            raise BadSampleError(f"is cut off: {count} of {data.size} bytes are there")
        return data


def _report(problems: Sequence[str], num_shards: int, on_error: OnError) -> None:
    if not problems:
        return
    if on_error == "raise":
        raise UserError(f"{len(problems)} of {num_shards} shards have problems: {'; '.join(problems[:3])}")
    for problem in problems[:_NAMED_PROBLEMS]:
        log.warning("%s (left out)", problem)
    log.warning("%d of %d shards are missing or broken", len(problems), num_shards)


class _OpenFiles:
    """Read-only descriptors of the shards used last."""

    def __init__(self) -> None:
        self._descriptors: OrderedDict[Path, int] = OrderedDict()

    def descriptor(self, path: Path) -> int:
        """An open descriptor of `path`; good until 64 other files have been asked for."""
        if path in self._descriptors:
            self._descriptors.move_to_end(path)
            return self._descriptors[path]
        if len(self._descriptors) >= _OPEN_FILES:
            os.close(self._descriptors.popitem(last=False)[1])
        self._descriptors[path] = os.open(path, os.O_RDONLY)
        return self._descriptors[path]

    def forget(self, path: Path) -> None:
        """Open `path` anew when it is asked for next."""
        if path in self._descriptors:
            os.close(self._descriptors.pop(path))

    def __reduce__(self) -> tuple[type["_OpenFiles"], tuple[()]]:
        return (_OpenFiles, ())

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
