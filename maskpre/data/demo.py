"""The built-in demo pictures: scenes of 20 classes of shape x surface pattern."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from maskpre.data.rendered import Recipe, ensure_rendered
from maskpre.data.scenes import RENDERER_VERSION, SceneRanges
from maskpre.data.scenes.pictures import ScenePictures


@dataclass(frozen=True, kw_only=True)
class _PictureRecipe(Recipe):
    ranges: SceneRanges

    stem: ClassVar[str] = "scenes"
    smallest: ClassVar[int] = 8
    samples: ClassVar[str] = "images"
    shard_size: ClassVar[int] = 250
    per_worker: ClassVar[int] = 2000
    room: ClassVar[str] = "5 kB per 64 x 64 image"

    @property
    def collection(self) -> ScenePictures:
        return ScenePictures(seed=self.seed, image_size=self.image_size, ranges=self.ranges)


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
    recipe = _PictureRecipe(
        image_size=image_size,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        ranges=SceneRanges(),
        renderer=RENDERER_VERSION,
    )
    return ensure_rendered(cache_dir, recipe, num_workers=num_workers)
