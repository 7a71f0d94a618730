"""Data that stay behind a pipe or URL."""

import logging
from dataclasses import dataclass
from pathlib import Path

from webdataset.shardlists import expand_urls

from maskpre.data.beside import CropRows
from maskpre.data.loader import BatchLoader
from maskpre.data.order import micro_batch_size
from maskpre.data.picture_data import PictureData
from maskpre.data.remote_shards import RemoteShards
from maskpre.data.remote_stream import RemoteBatches
from maskpre.data.retry import Backoff
from maskpre.data.sources import Source
from maskpre.data.splits import Split
from maskpre.data.transforms import Transform
from maskpre.errors import UserError

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class RemoteData(PictureData):
    """WebDataset shards streamed from a command or URL, for pretraining only.

    There is no exact order: a resumed run starts a new pass over newly shuffled shards, and other ranks
    or workers see other batches. The length of the run must be given in steps. Nothing is known about
    classes, so probes are off.

    Args:
        shards: 'pipe:COMMAND' or URLs (https, s3, ...), with braces and '::' between several.
        shuffle_buffer: samples that are shuffled with each other, per worker.
        shard_cache: folder on a local disk that keeps fetched shards; None streams them each time.
        shard_cache_gb: what it may hold; the oldest shards make room.
        retries: how often a shard that fails is fetched again before `on_error` applies to it.
        retry_seconds: pause before the first of them; each further one is twice as long.
    """

    shards: str
    shuffle_buffer: int = 1000
    shard_cache: str | None = None
    shard_cache_gb: float = 100.0
    retries: int = 5
    retry_seconds: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crops_per_sample is not None:
            raise UserError("data.crops_per_sample needs samples with numbers, which remote shards lack")
        if self.shard_cache_gb <= 0:
            raise UserError(f"data.shard_cache_gb must be greater than 0, got {self.shard_cache_gb}")
        cache = None if self.shard_cache is None else Path(self.shard_cache).expanduser()
        self._reader = RemoteShards(
            backoff=Backoff(retries=self.retries, seconds=self.retry_seconds),
            cache=cache,
            cache_bytes=int(self.shard_cache_gb * 10**9),
        )
        if self.cache != "none" or self.shuffle != "full":
            log.warning(
                "data.cache=%s and data.shuffle=%s have no effect on remote shards", self.cache, self.shuffle
            )

    @property
    def num_classes(self) -> int:
        """None are known."""
        return 0

    @property
    def num_train(self) -> None:
        """Not known."""
        return

    def prepare_data(self) -> None:
        """Nothing to prepare."""

    def has_split(self, split: Split) -> bool:
        """There is the training split alone."""
        return split == "train"

    def make_source(self, split: Split) -> Source:
        """UserError: a stream can't be read at random."""
        raise UserError(
            f"'{self.shards}' is a remote stream of unknown length without random access: set max_steps, and "
            "fetch the shards to a disk (data=webdataset) for anything that needs an index"
        )

    def train_loader(
        self,
        *,
        num_steps: int,
        start_step: int = 0,
        micro_batches: int = 1,
        rank: int = 0,
        world: int = 1,
        transform: Transform | None = None,
        batch_size: int | None = None,
        beside: CropRows | None = None,
    ) -> BatchLoader:
        """A stream of training batches; `beside` must be None."""
        if start_step:
            log.warning("remote shards: the resume is not exact; step %d starts a new pass", start_step)
        size = batch_size or self.batch_size
        share = micro_batch_size(size, world=world, micro_batches=micro_batches)
        urls = expand_urls(self.shards)
        workers = self._workers()
        if len(urls) < world * max(1, workers):
            raise UserError(
                f"{len(urls)} shards can't feed {world} ranks x {workers} workers, which read at least one "
                f"shard each: set data.num_workers to {len(urls) // world}"
            )
        dataset = RemoteBatches(
            urls=urls,
            reader=self._reader,
            transform=transform or self.transform,
            channels=self.channels,
            batch_size=share,
            seed=self.seed,
            on_error=self.on_error,
            start_step=start_step,
            rank=rank,
            world=world,
            buffer=self.shuffle_buffer,
        )
        return self._loader(dataset, None, num_steps * micro_batches)
