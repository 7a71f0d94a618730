"""Pictures for a run: what every kind of picture data has in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskpre.data.crops import RepeatedCrops
from maskpre.data.dataset import MAX_IN_A_ROW, OnBadSample, PictureBatches
from maskpre.data.decode import decode_picture
from maskpre.data.loader import BatchLoader
from maskpre.data.module import PretrainData
from maskpre.data.order import Request
from maskpre.data.resume import Layout
from maskpre.data.sources import BadSampleError
from maskpre.data.splits import Split
from maskpre.data.transforms import Transform
from maskpre.errors import UserError


@dataclass(kw_only=True, eq=False, repr=False)
class PictureData(PretrainData):
    """Loaders of pictures; what pictures and clips have in common says PretrainData.

    Args:
        crops_per_sample: a sample's crop in epoch e of pretraining is that of epoch e mod this number; None
            for a new one in every epoch.
    """

    crops_per_sample: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crops_per_sample is not None and self.crops_per_sample < 1:
            raise UserError(f"data.crops_per_sample must be at least 1, got {self.crops_per_sample}")

    @property
    def pretraining_transform(self) -> Transform:
        """`transform`, whose crops may come back after some epochs."""
        if self.crops_per_sample is None:
            return self.transform
        return RepeatedCrops(self.transform, count=self.crops_per_sample)

    def crop_loader(self, *, crop: int, samples: Sequence[int], batch_size: int) -> BatchLoader:
        """The pretraining crop of epoch `crop` of some samples, in order; bad samples are left out."""
        numbers = np.asarray(samples)
        starts = range(0, len(numbers), batch_size)
        requests = [Request(numbers[start : start + batch_size], crop) for start in starts]
        return self._loader(self._evaluation_set("train", self.transform), requests, len(requests))

    def _layout(self) -> Layout:
        return super()._layout() | {"crops_per_sample": self.crops_per_sample}

    def _training_set(self, transform: Transform) -> PictureBatches:
        return self._batches("train", transform, self._on_bad("replace"))

    def _evaluation_set(self, split: Split, transform: Transform) -> PictureBatches:
        return self._batches(split, transform, self._on_bad("drop"))

    def _batches(self, split: Split, transform: Transform, on_bad: OnBadSample) -> PictureBatches:
        return PictureBatches(
            source=self.source(split),
            transform=transform,
            channels=self.channels,
            seed=self.seed,
            on_bad=on_bad,
            cache=self._cache(split),
        )

    def _first_shape(self, split: Split) -> tuple[int, ...]:
        source = self.source(split)
        for index in range(min(len(source), MAX_IN_A_ROW)):
            try:
                return tuple(decode_picture(source.read(index).data, self.channels).shape)
            except BadSampleError:
                continue
        return self.channels, self.image_size, self.image_size
