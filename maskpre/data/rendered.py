"""Data sets that are rendered once into a cache folder, as WebDataset shards, then only found there."""

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from maskpre.data.files import only_one
from maskpre.data.progress import progress
from maskpre.data.scenes.shards import Collection, RenderJob, ShardSummary, write_shards
from maskpre.data.workers import available_cores
from maskpre.errors import UserError

Split = Literal["train", "test"]

_MANIFEST = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Everything the pixels of a rendered data set depend on; another recipe, another folder.

    A kind of data set says in class variables how small its pictures may be, what its samples are called, how
    many go into a shard, how many are worth a further process (which takes seconds to start), and about how
    much room one takes.

    Raises UserError for impossible values.
    """

    image_size: int
    num_train: int
    num_test: int
    seed: int
    renderer: int

    stem: ClassVar[str]
    smallest: ClassVar[int]
    samples: ClassVar[str]
    shard_size: ClassVar[int]
    per_worker: ClassVar[int]
    room: ClassVar[str]

    def __post_init__(self) -> None:
        check_at_least(
            image_size=(self.image_size, self.smallest),
            num_train=(self.num_train, 1),
            num_test=(self.num_test, 1),
            seed=(self.seed, 0),
        )

    @property
    @abstractmethod
    def collection(self) -> Collection:
        """What the samples are taken from."""

    @property
    def name(self) -> str:
        """The cache folder's name."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.stem}-{self.image_size}px-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def jobs(self, folder: Path, split: Split) -> list[RenderJob]:
        """What writes all shards of a split into `folder`.

        Test samples lie beyond any training set, at a multiple of the block in which classes are balanced.
        """
        collection = self.collection
        count = self.num_train if split == "train" else self.num_test
        start_index = 0 if split == "train" else len(collection.classes) << 36
        return [
            RenderJob(
                path=folder / f"{split}-{number:06d}.tar",
                collection=collection,
                first_index=start_index + start,
                first_key=start,
                count=min(self.shard_size, count - start),
            )
            for number, start in enumerate(range(0, count, self.shard_size))
        ]


def default_cache_dir() -> Path:
    """$MASKPRE_CACHE if it is set, else ~/.cache/maskpre."""
    return Path(os.environ.get("MASKPRE_CACHE") or Path.home() / ".cache" / "maskpre")


def cache_folder(configured: str | None) -> Path:
    """The folder a configuration names, or the default for None."""
    return default_cache_dir() if configured is None else Path(configured).expanduser()


def ensure_rendered(cache_dir: Path | None, recipe: Recipe, *, num_workers: int | None) -> Path:
    """Return the folder that holds what `recipe` describes, rendering it if it is not there yet.

    `num_workers` processes render (None: one per core).

    The folder holds train-000000.tar, ..., test-000000.tar, ... with members KEY.ENDING and KEY.cls (label
    in ASCII), and dataset.json: class names, counts, shards of each split, mean and std of the training
    pixels (per channel, scaled to 0..1), and the recipe. It appears under its name only when complete; of
    several processes one renders and the others wait.

    Raises UserError where the cache folder can't be written.
    """
    workers = available_cores() if num_workers is None else num_workers
    check_at_least(num_workers=(workers, 1))
    folder = (default_cache_dir() if cache_dir is None else cache_dir) / recipe.name
    if not _is_complete(folder):
        waiting = f"Another process renders the demo data into {folder}; waiting for it"
        lock_file = folder.parent / f"{folder.name}.lock"
        with _naming_the_folder(folder.parent, recipe.room), only_one(lock_file, waiting=waiting):
            if not _is_complete(folder):
                _render(folder, recipe, num_workers=workers)
    return folder


def check_at_least(**limits: tuple[int, int]) -> None:
    """UserError unless every value, given as (value, least), is large enough."""
    for name, (value, least) in limits.items():
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
def _naming_the_folder(cache_dir: Path, room: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"can't write the demo data to {cache_dir}: {error.strerror or error}; "
            f"set MASKPRE_CACHE to a folder with room for it ({room})"
        ) from error


def _render(folder: Path, recipe: Recipe, *, num_workers: int) -> None:
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


def _render_shards(partial: Path, recipe: Recipe, *, num_workers: int) -> dict[Split, list[ShardSummary]]:
    train, test = recipe.jobs(partial, "train"), recipe.jobs(partial, "test")
    jobs = train + test
    total = recipe.num_train + recipe.num_test
    title = f"Rendering {total} demo {recipe.samples} into {partial.parent}"
    with progress(title, total=total) as advance:
        workers = min(num_workers, len(jobs), 1 + total // recipe.per_worker)
        written = write_shards(jobs, num_workers=workers, on_samples=advance)
    return {"train": written[: len(train)], "test": written[len(train) :]}


def _manifest(recipe: Recipe, shards: dict[Split, list[ShardSummary]]) -> dict[str, Any]:
    collection = recipe.collection
    pixels = recipe.num_train * collection.pictures_per_sample * recipe.image_size**2
    mean = np.sum([shard.pixel_sum for shard in shards["train"]], axis=0) / pixels
    square = np.sum([shard.pixel_square_sum for shard in shards["train"]], axis=0) / pixels
    return {
        "recipe": asdict(recipe),
        "classes": list(collection.classes),
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
