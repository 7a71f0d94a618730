"""The loaders of a run: what every kind of data set has in common."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch.utils.data import Dataset

from maskpre.data.beside import CropRows, WithRows
from maskpre.data.dataset import Batches, Loaded, OnBadSample
from maskpre.data.loader import BatchLoader, SkipCount
from maskpre.data.order import GlobalOrder, Request, SequentialOrder, Shuffle
from maskpre.data.pixel_cache import PixelCache
from maskpre.data.resume import Layout, continue_layout
from maskpre.data.sources import OnError
from maskpre.data.splits import Split, SplitData
from maskpre.data.transforms import Transform
from maskpre.data.workers import available_cores
from maskpre.errors import UserError

_MOST_WORKERS = 8


@dataclass(kw_only=True, eq=False, repr=False)
class PretrainData(SplitData):
    """Loaders over the train and val split of one data set; a subclass says where the samples are.

    The training loader is one stream over the whole run: Lightning's single epoch is all of `max_steps`.
    Which samples and crops step s sees depends on `seed` and s alone (see GlobalOrder), so a run that
    restarts at the trainer's `global_step` goes on exactly, also with other workers or ranks.

    Args:
        image_size: side of the pictures the transforms deliver, pixels.
        channels: 1, 3 or more.
        mean, std: per channel, of pixels in [0, 1]; applied on the device, not here.
        batch_size: samples per optimiser step over all ranks and accumulated micro-batches.
        num_workers: loader processes per rank; None takes the rank's share of the CPU cores, at most 8.
        transform: for training. eval_transform: for probes and evaluation.
        seed: of order, crops and flips.
        shuffle: see `epoch_order`.
        on_error: "skip" replaces bad samples with a warning, "raise" stops at the first.
        cache: "ram" keeps decoded samples in memory.
    """

    image_size: int
    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    num_workers: int | None
    transform: Transform
    eval_transform: Transform
    seed: int
    shuffle: Shuffle = "full"
    on_error: OnError = "skip"
    cache: Literal["none", "ram"] = "none"

    def __post_init__(self) -> None:
        super().__init__()
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise UserError(f"data.{name} has {len(values)} values, data.channels is {self.channels}")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"data.seed must be in 0..2**64-1, got {self.seed}")
        self.beside: CropRows | None = None
        self.skipped = SkipCount()
        self._caches: dict[Split, PixelCache] = {}
        self._saved_layout: Layout | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in one pass over the training split; UserError if it has no known end."""
        return len(self.source("train")) // self.batch_size

    def train_dataloader(self) -> BatchLoader:
        """The micro-batches of this rank, from the trainer's current step to `max_steps`."""
        trainer = self.trainer
        assert trainer is not None
        if trainer.max_steps < 0:
            raise UserError(
                "trainer.max_steps must be set: the training data are one stream over the whole run"
            )
        continue_layout(trainer, before=self._saved_layout or self._layout(), now=self._layout())
        return self.train_loader(
            num_steps=trainer.max_steps,
            start_step=trainer.global_step,
            micro_batches=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world=trainer.world_size,
            transform=self.pretraining_transform,
            beside=self.beside,
        )

    @property
    def pretraining_transform(self) -> Transform:
        """What makes the crops of a pretraining run."""
        return self.transform

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
        """A stream of training batches outside a trainer, or with another transform or batch size.

        With `beside`, batches have the columns of these rows as further entries.
        """
        order = GlobalOrder(
            num_samples=len(self.source("train")),
            global_batch=batch_size or self.batch_size,
            seed=self.seed,
            num_steps=num_steps,
            start_step=start_step,
            rank=rank,
            world=world,
            micro_batches=micro_batches,
            shuffle=self.shuffle,
        )
        dataset: Dataset[Loaded] = self._training_set(transform or self.transform)
        if beside is not None:
            dataset = WithRows(dataset, beside)
        return self._loader(dataset, order, num_steps * micro_batches)

    def eval_loader(
        self,
        split: Split,
        *,
        batch_size: int | None = None,
        transform: Transform | None = None,
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> BatchLoader:
        """Samples of `split` once, in order, the last batch smaller; bad samples are left out.

        `limit` takes at most that many, spread evenly over the split. With several ranks, rank r gets every
        `world`-th batch.
        """
        order = SequentialOrder(
            num_samples=len(self.source(split)),
            limit=limit,
            batch_size=batch_size or self.batch_size,
            rank=rank,
            world=world,
        )
        dataset = self._evaluation_set(split, transform or self.eval_transform)
        return self._loader(dataset, order, len(order))

    def teardown(self, stage: str) -> None:
        """Called when a run ends: say how many samples it had to leave out."""
        self.skipped.close()

    def state_dict(self) -> Layout:
        """What the meaning of a step depends on, for the checkpoint."""
        return self._layout()

    def load_state_dict(self, state: Layout) -> None:
        """Remember the interrupted run's layout until the loader is made."""
        self._saved_layout = state

    def _layout(self) -> Layout:
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "num_samples": self.num_train,
            "micro_batches": 1 if self.trainer is None else self.trainer.accumulate_grad_batches,
        }

    @abstractmethod
    def _training_set(self, transform: Transform) -> Batches:
        """Batches of the train split; bad samples are replaced."""

    @abstractmethod
    def _evaluation_set(self, split: Split, transform: Transform) -> Batches:
        """Batches of a split in which bad samples are left out."""

    def _on_bad(self, skipping: Literal["replace", "drop"]) -> OnBadSample:
        return "raise" if self.on_error == "raise" else skipping

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        devices = 1 if self.trainer is None else self.trainer.num_devices
        return max(1, min(_MOST_WORKERS, available_cores() // devices))

    def _loader(
        self, dataset: Dataset[Loaded], requests: Iterable[Request] | None, total: int
    ) -> BatchLoader:
        return BatchLoader(
            dataset=dataset,
            requests=requests,
            num_workers=self._workers(),
            skipped=self.skipped,
            total=total,
        )

    def _cache(self, split: Split) -> PixelCache | None:
        """Memory for decoded samples, if there shall be any; shared by all loaders of a split."""
        if self.cache == "ram" and split not in self._caches:
            shape = self._first_shape(split)
            self._caches[split] = PixelCache(count=len(self.source(split)), shape=shape)
        return self._caches.get(split)

    @abstractmethod
    def _first_shape(self, split: Split) -> tuple[int, ...]:
        """Shape of the first sample that can be decoded."""
