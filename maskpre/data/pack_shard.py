"""Writing one WebDataset shard."""

import io
import json
import re
import tarfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from maskpre.data.dataset import BadSample
from maskpre.data.files import atomic_path, write_json
from maskpre.data.repack import Repack
from maskpre.data.sources import BadSampleError, FolderSource, ListSource
from maskpre.data.sources.index_cache import IndexCache

_NAME_LENGTH = 80

FileSource = FolderSource | ListSource


@dataclass(kw_only=True)
class PackedShard:
    """What is in one shard.

    `mean_sum` and `square_sum` add up each sample's mean pixel and mean squared pixel per channel, in
    [0, 1]; empty if they were not measured. `class_counts` is empty for unlabelled data.
    """

    file: str
    samples: int = 0
    bytes: int = 0
    class_counts: list[int]
    bad: list[BadSample] = field(default_factory=list)
    mean_sum: list[float]
    square_sum: list[float]


@dataclass(frozen=True, kw_only=True)
class ShardPacker:
    """Writes shard number n of some files: samples n * samples_per_shard and on of `order`, made by `repack`.

    `channels` are those that are measured, 0 if none. A finished shard has a report in `state` that gives its
    size; such a shard is left alone.
    """

    source: FileSource
    order: NDArray[np.int64]
    stem: str
    state: Path
    samples_per_shard: int
    repack: Repack
    channels: int

    @property
    def num_shards(self) -> int:
        """Shards in all."""
        return -(-len(self.order) // self.samples_per_shard)

    def __call__(self, number: int) -> PackedShard:
        """Shard `number`, made now or earlier."""
        path = Path(f"{self.stem}-{number:06d}.tar")
        report = self.state / f"{path.stem}.json"
        finished = _read_report(report, path)
        if finished is not None:
            return finished
        with atomic_path(path) as temporary:
            shard = self._write(temporary, path.name, number)
        shard.bytes = path.stat().st_size
        IndexCache(self.state, self.source.media).build(path)
        write_json(report, asdict(shard))
        return shard

    def _write(self, path: Path, name: str, number: int) -> PackedShard:
        shard = PackedShard(
            file=name,
            class_counts=[0] * len(self.source.classes),
            mean_sum=[0.0] * self.channels,
            square_sum=[0.0] * self.channels,
        )
        first = number * self.samples_per_shard
        with tarfile.open(path, "w") as tar:
            for position in range(first, min(first + self.samples_per_shard, len(self.order))):
                index = int(self.order[position])
                try:
                    self._add(tar, shard, position, index)
                except BadSampleError as error:
                    shard.bad.append(BadSample(index, self.source.key(index), str(error)))
        return shard

    def _add(self, tar: tarfile.TarFile, shard: PackedShard, position: int, index: int) -> None:
        relative = Path(relative_path(self.source, index))
        raw = self.source.read(index)
        content, extension, moments = self.repack(raw, relative.suffix.lower())
        known = self.source.media.suffixes
        if extension not in known:
            raise BadSampleError(
                f"ends in {extension!r}, which is no {self.source.media.noun} in a shard; known are "
                f"{', '.join(known)}"
            )
        if moments is not None:
            _measure(shard, moments)
        words = re.sub(r"[^A-Za-z0-9_-]", "_", relative.with_suffix("").as_posix())
        key = f"{position:08d}_{words[-_NAME_LENGTH:]}"
        _add_member(tar, key + extension, content)
        if raw.label >= 0:
            _add_member(tar, f"{key}.cls", str(raw.label).encode())
            shard.class_counts[raw.label] += 1
        shard.samples += 1


def relative_path(source: FileSource, index: int) -> str:
    """Path of a file below the root, with forward slashes; the whole path of one that lies elsewhere."""
    path = Path(source.key(index))
    return (path.relative_to(source.root) if path.is_relative_to(source.root) else path).as_posix()


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without date or owner, so that equal pictures make equal shards."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _measure(shard: PackedShard, moments: Float32[Tensor, "2 c"]) -> None:
    means, squares = moments.tolist()
    shard.mean_sum = [total + value for total, value in zip(shard.mean_sum, means, strict=True)]
    shard.square_sum = [total + value for total, value in zip(shard.square_sum, squares, strict=True)]


def _read_report(report: Path, shard: Path) -> PackedShard | None:
    """The report of a shard that is there in full."""
    if not report.is_file() or not shard.is_file():
        return None
    content = json.loads(report.read_text(encoding="utf-8"))
    if content["bytes"] != shard.stat().st_size:
        return None
    content["bad"] = [BadSample(*sample) for sample in content["bad"]]
    return PackedShard(**content)
