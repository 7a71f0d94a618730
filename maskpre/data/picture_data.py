"""Pictures for a run: what every kind of picture data has in common."""

from dataclasses import dataclass

from maskpre.data.dataset import MAX_IN_A_ROW, OnBadSample, PictureBatches
from maskpre.data.decode import decode_picture
from maskpre.data.module import PretrainData, Split
from maskpre.data.sources import BadSampleError
from maskpre.data.transforms import Transform


@dataclass(kw_only=True, eq=False, repr=False)
class PictureData(PretrainData):
    """Loaders of pictures."""

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
