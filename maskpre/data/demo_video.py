"""The built-in demo video: clips of scenes whose ten classes differ in motion alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from maskpre.data.rendered import Recipe, check_at_least, ensure_rendered
from maskpre.data.scenes import RENDERER_VERSION
from maskpre.data.scenes.clips import SceneClips
from maskpre.data.scenes.motion import ClipRanges
from maskpre.errors import UserError

_QUANTISER = 20


@dataclass(frozen=True, kw_only=True)
class _VideoRecipe(Recipe):
    num_frames: int
    quantiser: int
    ranges: ClipRanges

    stem: ClassVar[str] = "motions"
    smallest: ClassVar[int] = 16
    samples: ClassVar[str] = "clips"
    shard_size: ClassVar[int] = 100
    per_worker: ClassVar[int] = 200
    room: ClassVar[str] = "15 kB per clip of 16 frames of 64 x 64"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(num_frames=(self.num_frames, 2))
        if self.image_size % 2:
            raise UserError(f"demo data: image_size must be even for H.264, got {self.image_size}")

    @property
    def collection(self) -> SceneClips:
        return SceneClips(
            seed=self.seed,
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
    return ensure_rendered(cache_dir, recipe, num_workers=num_workers)
