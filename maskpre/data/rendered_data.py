"""Rendered data sets as the splits of a run."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from maskpre.data.module import PretrainData
from maskpre.data.rendered import cache_folder
from maskpre.data.sources import Media, ShardSource, Source
from maskpre.data.splits import Split


@dataclass(kw_only=True, eq=False, repr=False)
class RenderedData(PretrainData):
    """Samples that are rendered into `cache_dir` at the first use.

    Args:
        cache_dir: where the shards are kept; None for `default_cache_dir`.
        num_train, num_val: how many samples.
        scene_seed: of the scenes; independent of the run's `seed`.
    """

    media: ClassVar[Media]

    cache_dir: str | None = None
    num_train: int
    num_val: int
    scene_seed: int = 0

    @abstractmethod
    def ensure(self, cache_dir: Path) -> Path:
        """The folder below `cache_dir` that holds both splits, rendered if they are not there."""

    def make_source(self, split: Split) -> Source:
        """The shards of `split`, rendered if they are not there."""
        cache_dir = cache_folder(self.cache_dir)
        name = "train" if split == "train" else "test"
        return ShardSource(
            shards=f"{self.ensure(cache_dir)}/{name}-*.tar",
            cache_dir=cache_dir,
            on_error=self.on_error,
            media=self.media,
        )
