"""The built-in demo video: clips of scenes whose ten classes differ in motion alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from maskpre.data.rendered import Recipe, check_at_least, ensure_rendered
from maskpre.data.scenes import RENDERER_VERSION
from maskpre.data.scenes.clips import ClipJob
from maskpre.data.scenes.motion import MOTIONS, ClipRanges
from maskpre.data.workers import available_cores
from maskpre.errors import UserError

_QUANTISER = 20


@dataclass(frozen=True, kw_only=True)
class _VideoRecipe(Recipe):
    num_frames: int
    quantiser: int
    ranges: ClipRanges

    stem: ClassVar[str] = "motions"
    samples: ClassVar[str] = "clips"
    shard_size: ClassVar[int] = 100
    per_worker: ClassVar[int] = 200
    room: ClassVar[str] = "15 kB per clip of 16 frames of 64 x 64"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(motion.name for motion in MOTIONS)

    @property
    def frames(self) -> int:
        return self.num_frames

    def job(self, path: Path, *, first_index: int, first_key: int, count: int) -> ClipJob:
        return ClipJob(
            path=path,
            seed=self.seed,
            first_index=first_index,
            first_key=first_key,
            count=count,
            image_size=self.image_size,
            num_frames=self.num_frames,
            quantiser=self.quantiser,
            ranges=self.ranges,
        )


def ensure_demo_video(
    cache_dir: Path | None = None,
    *,
    image_size: int = 64,
    num_frames: int = 16,
    num_train: int = 4_000,
    num_test: int = 1_000,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """Return the folder that holds the demo video with these parameters; see `ensure_rendered`.

    Members are KEY.mp4 of `num_frames` frames, and KEY.cls. `num_workers` processes render (default: one per
    core). Raises UserError for impossible parameters and where the cache folder can't be written.
    """
    workers = available_cores() if num_workers is None else num_workers
    check_at_least(
        image_size=(image_size, 16),
        num_frames=(num_frames, 2),
        num_train=(num_train, 1),
        num_test=(num_test, 1),
        seed=(seed, 0),
        num_workers=(workers, 1),
    )
    if image_size % 2:
        raise UserError(f"demo data: image_size must be even for H.264, got {image_size}")
    recipe = _VideoRecipe(
        image_size=image_size,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        renderer=RENDERER_VERSION,
        num_frames=num_frames,
        quantiser=_QUANTISER,
        ranges=ClipRanges(),
    )
    return ensure_rendered(cache_dir, recipe, num_workers=workers)
