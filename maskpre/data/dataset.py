"""From requests to batches: read, decode, transform, and what happens to samples that can't be read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from maskpre.data.decode import decode_picture
from maskpre.data.order import Request
from maskpre.data.pixel_cache import PixelCache
from maskpre.data.randomness import Draws, raw_bits
from maskpre.data.sources import BadSampleError, Source
from maskpre.data.transforms import Transform

Batch = dict[str, Tensor]
OnBadSample = Literal["replace", "drop", "raise"]

MAX_IN_A_ROW = 16


class BadSample(NamedTuple):
    """A sample that could not be read: its number in the source, its key, and the reason."""

    number: int
    key: str
    reason: str


class Loaded(NamedTuple):
    """A batch, with what went wrong on the way.

    `batch` is None if nothing could be delivered; `failure` says why the run must stop, else it is empty.
    """

    batch: Batch | None
    bad: list[BadSample]
    failure: str = ""


class Sample(NamedTuple):
    """One transformed picture or clip on its way into a batch.

    `number` is its place in the source; with the `epoch` it keys everything random that is done to it.
    """

    pixels: UInt8[Tensor, "c *any h w"]
    label: int
    number: int
    epoch: int


def collate(samples: Sequence[Sample], view: str = "image") -> Batch:
    """The batch of some samples, their pixels under the name `view`."""
    pixels, labels, indices, epochs = zip(*samples, strict=True)
    return {
        view: torch.stack(pixels),
        "label": torch.tensor(labels),
        "index": torch.tensor(indices),
        "epoch": torch.tensor(epochs),
    }


def too_many(bad: Sequence[BadSample], where: str) -> str:
    """The message that ends a run which finds nothing but bad samples."""
    examples = "; ".join(f"'{sample.key}' {sample.reason}" for sample in bad[:3])
    return f"{len(bad)} samples in a row can't be read ({where}), e.g. {examples}"


class _FailedError(Exception):
    """The batch can't be completed."""


class Batches(Dataset[Loaded], ABC):
    """Map-style data set whose items are whole batches.

    A batch is {view: uint8 (B, C, ...), "label": int64 (B,), "index": int64 (B,), "epoch": int64 (B,)} with
    label -1 for none. A bad sample is replaced by one chosen by (seed, epoch, its index, attempt), whose own
    index the batch then carries; or dropped (evaluation); or fails the batch. Failing is a result, not an
    exception, so that the main process can raise it with a clean message.
    """

    view: ClassVar[str]

    def __init__(self, *, source: Source, seed: int, on_bad: OnBadSample) -> None:
        self.source = source
        self.seed = seed
        self.on_bad: OnBadSample = on_bad

    @abstractmethod
    def samples(self, index: int, epoch: int) -> list[Sample]:
        """What one sample of the source gives in one epoch; raises BadSampleError if it can't be read."""

    def __getitem__(self, request: Request) -> Loaded:
        """The batch of one request."""
        bad: list[BadSample] = []
        samples: list[Sample] = []
        try:
            for index in request.indices.tolist():
                samples += self._load_or_replace(index, request.epoch, bad)
        except _FailedError as error:
            return Loaded(None, bad, str(error))
        if not samples:
            return Loaded(None, bad, self._nothing_but(bad) if len(bad) >= MAX_IN_A_ROW else "")
        return Loaded(collate(samples, self.view), bad)

    def _load_or_replace(self, index: int, epoch: int, bad: list[BadSample]) -> list[Sample]:
        chosen, before = index, len(bad)
        for attempt in range(1, MAX_IN_A_ROW + 1):
            try:
                return self.samples(chosen, epoch)
            except BadSampleError as error:
                bad.append(BadSample(chosen, self.source.key(chosen), str(error)))
            if self.on_bad == "drop":
                return []
            if self.on_bad == "raise":
                raise _FailedError(f"'{bad[-1].key}' {bad[-1].reason} (data.on_error=raise)")
            bits = raw_bits(
                seed=self.seed, stream="replacement", epoch=epoch, index=index, attempt=attempt, count=1
            )
            chosen = int(bits[0] % len(self.source))
        raise _FailedError(self._nothing_but(bad[before:]))

    def _nothing_but(self, bad: Sequence[BadSample]) -> str:
        return too_many(bad, self.source.describe())


class PictureBatches(Batches):
    """Batches of pictures, (B, C, H, W) under "image"."""

    view = "image"

    def __init__(
        self,
        *,
        source: Source,
        transform: Transform,
        channels: int,
        seed: int,
        on_bad: OnBadSample,
        cache: PixelCache | None = None,
    ) -> None:
        super().__init__(source=source, seed=seed, on_bad=on_bad)
        self.transform = transform
        self.channels = channels
        self.cache = cache

    def samples(self, index: int, epoch: int) -> list[Sample]:
        """The transformed picture."""
        image = self.transform(self.picture(index), Draws(self.seed, epoch, index))
        return [Sample(image, int(self.source.labels[index]), index, epoch)]

    def picture(self, index: int) -> UInt8[Tensor, "c h w"]:
        """The decoded picture, from memory if it was decoded before; raises BadSampleError."""
        if self.cache is None:
            return decode_picture(self.source.read(index).data, self.channels)
        image = self.cache.get(index)
        if image is None:
            image = decode_picture(self.source.read(index).data, self.channels)
            self.cache.put(index, image)
        return image
