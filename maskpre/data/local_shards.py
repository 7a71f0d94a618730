"""Shards on a local or mounted disk as the splits of a data set."""

from dataclasses import dataclass
from typing import ClassVar

from maskpre.data.module import PretrainData
from maskpre.data.rendered import cache_folder
from maskpre.data.sources import Media, ShardSource, Source
from maskpre.data.sources.shards import is_remote
from maskpre.data.splits import Split
from maskpre.errors import UserError


@dataclass(kw_only=True, eq=False, repr=False)
class LocalShards(PretrainData):
    """WebDataset shards on a local or mounted disk.

    Args:
        shards: paths with braces ('/data/train-{000000..000099}.tar') or globs.
        val_shards: those of the val split; None for none.
        cache_dir: takes the index of shards in folders that can't be written; None for `default_cache_dir`.
    """

    media: ClassVar[Media]
    # What to do about a remote stream, at the end of a sentence about it.
    if_remote: ClassVar[str]

    shards: str
    val_shards: str | None = None
    cache_dir: str | None = None

    def make_source(self, split: Split) -> Source | None:
        """The shards of `split`."""
        shards = self.shards if split == "train" else self.val_shards
        if shards is None:
            return None
        if is_remote(shards):
            raise UserError(f"'{shards}' is a remote stream, which can't be read at random: {self.if_remote}")
        classes = self.source("train").classes if split == "val" else None
        return ShardSource(
            shards=shards,
            cache_dir=cache_folder(self.cache_dir),
            on_error=self.on_error,
            classes=classes or None,
            media=self.media,
        )
