"""Files of pictures or video into WebDataset shards, in parallel, going on where it was interrupted."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout

from maskpre.data.files import write_json
from maskpre.data.loader import SkipCount
from maskpre.data.order import Shuffle, epoch_order
from maskpre.data.pack_shard import FileSource, PackedShard, ShardPacker, relative_path
from maskpre.data.progress import progress
from maskpre.data.repack import PictureRepack, Repack
from maskpre.data.repack_video import VideoRepack
from maskpre.data.sources import PICTURES, VIDEOS, FolderLabels, FolderSource, ListSource
from maskpre.data.workers import available_cores, parallel
from maskpre.errors import UserError

log = logging.getLogger(__name__)

_MANIFEST = "dataset.json"
_STATE = ".maskpre-prepare"
_MEDIA = {"pictures": PICTURES, "video": VIDEOS}
# Settings that shards don't depend on; what a list says is hashed.
_WITHOUT_EFFECT = ("dst", "num_workers", "files", "separator")
_SHARD_SIZES = {"pictures": 1000, "video": 100}


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What `python -m maskpre.prepare` does.

    Args:
        src: folder of pictures or video, by `media`.
        files: a list of those to take, with their class numbers; see ListSource. None takes all.
        separator: between path and class number in `files`.
        dst: folder the shards go to, as NAME-000000.tar, with an index each and a dataset.json that describes
            all of them.
        name: of this split; a second one into the same `dst` gets the classes of the first.
        labels: see FolderSource; without `files`.
        samples_per_shard: the last shard has fewer, and those with bad samples too; None for 1000 pictures or
            100 videos.
        order: "mixed" spreads neighbours over the shards, by `seed`; "sorted" keeps the order of the paths.
        resize: short side in pixels that larger pictures are reduced to and encoded as JPEG of `quality`, and
            larger videos too, see VideoRepack; None copies pictures, and videos if `gop` is None too.
        gop: frames between key frames that videos are encoded with. crf: constant rate factor of doing so.
        channels: 1, 3 or more, as in `data.channels`; of pictures.
        check: "decode" decodes everything, leaves out and names what is bad, and measures mean and standard
            deviation; "none" leaves out only what can't be read.
        num_workers: processes; None for one per core.
    """

    src: str
    dst: str
    files: str | None = None
    separator: str = ","
    name: str = "train"
    media: Literal["pictures", "video"] = "pictures"
    labels: FolderLabels = "auto"
    samples_per_shard: int | None = None
    order: Literal["mixed", "sorted"] = "mixed"
    seed: int = 0
    resize: int | None = None
    quality: int = 95
    gop: int | None = None
    crf: int = 23
    channels: int = 3
    check: Literal["decode", "none"] = "decode"
    num_workers: int | None = None

    def __post_init__(self) -> None:
        if self.samples_per_shard is not None and self.samples_per_shard < 1:
            raise UserError(f"samples_per_shard must be at least 1, got {self.samples_per_shard}")
        if self.gop is not None and (self.gop < 1 or self.media == "pictures"):
            raise UserError(f"gop ({self.gop}) must be at least 1 and is for media=video")
        if not 0 <= self.crf <= 51:
            raise UserError(f"crf must be in 0..51, got {self.crf}")
        if self.media == "video" and self.channels != 3:
            raise UserError(f"channels must be 3 for media=video, got {self.channels}")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality must be in 1..100, got {self.quality}")
        if self.resize is not None and (self.resize < 1 or self.channels not in (1, 3)):
            raise UserError(
                f"resize ({self.resize}) must be positive and needs 1 or 3 channels, got {self.channels}"
            )

    def run(self) -> Path:
        """Make the shards that are not there yet; returns the path of dataset.json.

        Raises UserError if `dst` holds shards of the same name made otherwise, if another process is at
        it, or if no picture is good.
        """
        dst = Path(self.dst).expanduser()
        state = dst / _STATE
        state.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(state / f"{self.name}.lock", timeout=0):
                return self._run(dst, state)
        except Timeout:
            raise UserError(f"another process is preparing '{self.name}' in '{dst}'") from None

    def _run(self, dst: Path, state: Path) -> Path:
        manifest = _read_manifest(dst)
        source = self._open_source(manifest.get("classes") or None)
        self._claim(source, dst, state)
        for leftover in dst.glob(f".{self.name}-*.tmp"):
            leftover.unlink()
        shuffle: Shuffle = "full" if self.order == "mixed" else "none"
        order = epoch_order(num_samples=len(source), seed=self.seed, epoch=0, shuffle=shuffle)
        packer = ShardPacker(
            source=source,
            order=order,
            stem=str(dst / self.name),
            state=state,
            samples_per_shard=self.samples_per_shard or _SHARD_SIZES[self.media],
            repack=self._repack(),
            channels=self.channels if self.check == "decode" else 0,
        )
        shards = self._pack_all(packer)
        if not any(shard.samples for shard in shards):
            first = shards[0].bad[0]
            raise UserError(
                f"none of the {len(source)} {source.media.noun}s in '{source.root}' is good, "
                f"e.g. '{first.key}' {first.reason}"
            )
        return self._finish(dst, manifest, source, shards)

    def _open_source(self, classes: Sequence[str] | None) -> FileSource:
        media = _MEDIA[self.media]
        if self.files is None:
            return FolderSource(root=self.src, labels=self.labels, classes=classes, media=media)
        return ListSource(
            files=self.files, root=self.src, separator=self.separator, classes=classes, media=media
        )

    def _repack(self) -> Repack:
        decode = self.check == "decode"
        if self.media == "video":
            return VideoRepack(resize=self.resize, gop=self.gop, crf=self.crf, decode=decode)
        return PictureRepack(resize=self.resize, quality=self.quality, channels=self.channels, decode=decode)

    def _claim(self, source: FileSource, dst: Path, state: Path) -> None:
        """Write down what the shards are made of, or refuse if that differs from last time."""
        settings = {name: value for name, value in asdict(self).items() if name not in _WITHOUT_EFFECT}
        settings |= {
            "src": str(source.root.resolve()),
            "samples": len(source),
            "listing": self._listing(source),
        }
        recorded = state / f"{self.name}.json"
        if not recorded.is_file():
            write_json(recorded, settings)
            return
        before = json.loads(recorded.read_text())
        changed = [
            f"{key} was {before.get(key)!r}, now {value!r}"
            for key, value in settings.items()
            if before.get(key) != value
        ]
        if changed:
            raise UserError(
                f"'{dst}' holds '{self.name}' shards made otherwise ({'; '.join(changed)}): choose another "
                "dst or name, or delete them"
            )

    def _listing(self, source: FileSource) -> str:
        """A hash of the files, and of the classes that a list gives them."""
        listing = hashlib.blake2b(digest_size=16)
        for index in range(len(source)):
            listing.update(relative_path(source, index).encode("utf-8", "surrogateescape") + b"\0")
        if self.files is not None:
            listing.update(source.labels.tobytes())
        return listing.hexdigest()

    def _pack_all(self, packer: ShardPacker) -> list[PackedShard]:
        total = len(packer.order)
        skipped = SkipCount()
        shards: list[PackedShard] = []
        title = f"Packing {total} {packer.source.media.noun}s into {packer.num_shards} shards"
        with progress(title, total=total) as advance:
            workers = self.num_workers or available_cores()
            for shard in parallel(packer, range(packer.num_shards), processes=workers):
                skipped.add(shard.bad)
                shards.append(shard)
                advance(shard.samples + len(shard.bad))
        skipped.close()
        return shards

    def _finish(
        self, dst: Path, manifest: dict[str, Any], source: FileSource, shards: list[PackedShard]
    ) -> Path:
        counts = np.sum([shard.class_counts for shard in shards], axis=0)
        split: dict[str, Any] = {
            "count": sum(shard.samples for shard in shards),
            "class_counts": counts.tolist(),
            "bad": [sample.key for shard in shards for sample in shard.bad],
            "shards": [{"file": s.file, "count": s.samples, "bytes": s.bytes} for s in shards],
        }
        if self.check == "decode":
            mean = np.sum([s.mean_sum for s in shards], axis=0) / split["count"]
            square = np.sum([s.square_sum for s in shards], axis=0) / split["count"]
            split |= {"mean": mean.round(4).tolist(), "std": np.sqrt(square - mean**2).round(4).tolist()}
        manifest["classes"] = list(source.classes)
        manifest.setdefault("splits", {})[self.name] = split
        write_json(dst / _MANIFEST, manifest)
        return dst / _MANIFEST


def _read_manifest(dst: Path) -> dict[str, Any]:
    path = dst / _MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
