"""The built-in demo data: rendered once into WebDataset shards in a cache folder, then only found there."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskpre.data.files import only_one
from maskpre.data.progress import progress
from maskpre.data.scenes import CLASS_NAMES, RENDERER_VERSION, SceneRanges
from maskpre.data.scenes.shards import ShardJob, ShardSummary, write_shards
from maskpre.data.workers import available_cores
from maskpre.errors import UserError

Split = Literal["train", "test"]

# A worker process takes seconds to start: fewer images than this are rendered without.
_IMAGES_PER_WORKER = 2000
_SHARD_SIZE = 250
_MANIFEST = "dataset.json"
_FIRST_INDEX: dict[Split, int] = {"train": 0, "test": len(CLASS_NAMES) << 36}
"""Test scenes lie beyond any training set, at a multiple of the block in which classes are balanced."""


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """Everything the pixels depend on."""

    image_size: int
    num_train: int
    num_test: int
    seed: int
    ranges: SceneRanges
    renderer: int

    @property
    def name(self) -> str:
        """The cache folder's name: another recipe, another folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"scenes-{self.image_size}px-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def count(self, split: Split) -> int:
        return self.num_train if split == "train" else self.num_test


def default_cache_dir() -> Path:
    """$MASKPRE_CACHE if it is set, else ~/.cache/maskpre."""
    return Path(os.environ.get("MASKPRE_CACHE") or Path.home() / ".cache" / "maskpre")


def ensure_demo(
    cache_dir: Path | None = None,
    *,
    image_size: int = 64,
    num_train: int = 20_000,
    num_test: int = 4_000,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """Return the folder that holds the demo data with these parameters, rendering it if it is not there yet.

    The folder holds train-000000.tar, ..., test-000000.tar, ... with members KEY.png and KEY.cls (label in
    ASCII), and dataset.json: class names, counts, shards of each split, mean and std of the training pixels
    (per channel, scaled to 0..1), renderer version. It appears under its name only when complete; of several
    processes one renders and the others wait. `num_workers` processes render (default: one per core).

    Raises UserError for impossible parameters and where the cache folder can't be written.
    """
    workers = available_cores() if num_workers is None else num_workers
    _check(image_size=image_size, num_train=num_train, num_test=num_test, seed=seed, num_workers=workers)
    recipe = _Recipe(
        image_size=image_size,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        ranges=SceneRanges(),
        renderer=RENDERER_VERSION,
    )
    folder = (default_cache_dir() if cache_dir is None else cache_dir) / recipe.name
    if not _is_complete(folder):
        waiting = f"Another process renders the demo data into {folder}; waiting for it"
        lock_file = folder.parent / f"{folder.name}.lock"
        with _naming_the_folder(folder.parent), only_one(lock_file, waiting=waiting):
            if not _is_complete(folder):
                _render(folder, recipe, num_workers=workers)
    return folder


def _check(*, image_size: int, num_train: int, num_test: int, seed: int, num_workers: int) -> None:
    for name, value, least in (
        ("image_size", image_size, 8),
        ("num_train", num_train, 1),
        ("num_test", num_test, 1),
        ("seed", seed, 0),
        ("num_workers", num_workers, 1),
    ):
        if value < least:
            raise UserError(f"demo data: {name} must be at least {least}, got {value}")


def _is_complete(folder: Path) -> bool:
    """Whether the folder holds every shard in its recorded size."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        return False
    splits = json.loads(manifest.read_text(encoding="utf-8"))["splits"]
    shards = [shard for split in splits.values() for shard in split["shards"]]
    paths = [folder / shard["file"] for shard in shards]
    return all(
        path.is_file() and path.stat().st_size == shard["bytes"]
        for path, shard in zip(paths, shards, strict=True)
    )


@contextmanager
def _naming_the_folder(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"can't write the demo data to {cache_dir}: {error.strerror or error}; "
            "set MASKPRE_CACHE to a folder with room for it (5 kB per 64 x 64 image)"
        ) from error


def _render(folder: Path, recipe: _Recipe, *, num_workers: int) -> None:
    """Render beside the final place and move there at the end; whatever a killed process left goes first."""
    for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        shards = _render_shards(partial, recipe, num_workers=num_workers)
        _write_manifest(partial / _MANIFEST, _manifest(recipe, shards))
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _render_shards(partial: Path, recipe: _Recipe, *, num_workers: int) -> dict[Split, list[ShardSummary]]:
    train, test = _jobs(partial, recipe, "train"), _jobs(partial, recipe, "test")
    jobs = train + test
    total = recipe.num_train + recipe.num_test
    with progress(f"Rendering {total} demo images into {partial.parent}", total=total) as advance:
        workers = min(num_workers, len(jobs), 1 + total // _IMAGES_PER_WORKER)
        written = write_shards(jobs, num_workers=workers, on_images=advance)
    return {"train": written[: len(train)], "test": written[len(train) :]}


def _jobs(partial: Path, recipe: _Recipe, split: Split) -> list[ShardJob]:
    count = recipe.count(split)
    return [
        ShardJob(
            path=partial / f"{split}-{number:06d}.tar",
            seed=recipe.seed,
            first_index=_FIRST_INDEX[split] + start,
            first_key=start,
            count=min(_SHARD_SIZE, count - start),
            image_size=recipe.image_size,
            ranges=recipe.ranges,
        )
        for number, start in enumerate(range(0, count, _SHARD_SIZE))
    ]


def _manifest(recipe: _Recipe, shards: dict[Split, list[ShardSummary]]) -> dict[str, Any]:
    pixels = recipe.num_train * recipe.image_size**2
    mean = np.sum([shard.pixel_sum for shard in shards["train"]], axis=0) / pixels
    square = np.sum([shard.pixel_square_sum for shard in shards["train"]], axis=0) / pixels
    return {
        "recipe": asdict(recipe),
        "classes": list(CLASS_NAMES),
        "mean": mean.tolist(),
        "std": np.sqrt(square - mean**2).tolist(),
        "splits": {split: _split_entry(written) for split, written in shards.items()},
    }


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _split_entry(shards: list[ShardSummary]) -> dict[str, Any]:
    return {
        "count": sum(shard.count for shard in shards),
        "class_counts": np.sum([shard.class_counts for shard in shards], axis=0).tolist(),
        "shards": [{"file": shard.file, "count": shard.count, "bytes": shard.bytes} for shard in shards],
    }
