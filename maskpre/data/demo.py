"""The built-in demo pictures: scenes of 20 classes of shape x surface pattern."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from maskpre.data.rendered import Recipe, check_at_least, ensure_rendered
from maskpre.data.scenes import CLASS_NAMES, RENDERER_VERSION, SceneRanges
from maskpre.data.scenes.shards import ShardJob
from maskpre.data.workers import available_cores


@dataclass(frozen=True, kw_only=True)
class _PictureRecipe(Recipe):
    ranges: SceneRanges

    stem: ClassVar[str] = "scenes"
    samples: ClassVar[str] = "images"
    shard_size: ClassVar[int] = 250
    per_worker: ClassVar[int] = 2000
    room: ClassVar[str] = "5 kB per 64 x 64 image"

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASS_NAMES

    @property
    def frames(self) -> int:
        return 1

    def job(self, path: Path, *, first_index: int, first_key: int, count: int) -> ShardJob:
        return ShardJob(
            path=path,
            seed=self.seed,
            first_index=first_index,
            first_key=first_key,
            count=count,
            image_size=self.image_size,
            ranges=self.ranges,
        )


def ensure_demo(
    cache_dir: Path | None = None,
    *,
    image_size: int = 64,
    num_train: int = 20_000,
    num_test: int = 4_000,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """Return the folder that holds the demo pictures with these parameters; see `ensure_rendered`.

    Members are KEY.png and KEY.cls. `num_workers` processes render (default: one per core). Raises UserError
    for impossible parameters and where the cache folder can't be written.
    """
    workers = available_cores() if num_workers is None else num_workers
    check_at_least(
        image_size=(image_size, 8),
        num_train=(num_train, 1),
        num_test=(num_test, 1),
        seed=(seed, 0),
        num_workers=(workers, 1),
    )
    recipe = _PictureRecipe(
        image_size=image_size,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        ranges=SceneRanges(),
        renderer=RENDERER_VERSION,
    )
    return ensure_rendered(cache_dir, recipe, num_workers=workers)
