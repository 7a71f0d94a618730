"""From requests to batches: read, decode, transform, and what happens to samples that can't be read."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

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
    """A batch, with what went wrong on the way; `batch` is None if nothing could be delivered."""

    batch: Batch | None
    bad: list[BadSample]
    failed: bool


class _FailedError(Exception):
    """The batch can't be completed."""


class PictureBatches(Dataset[Loaded]):
    """Map-style data set whose items are whole batches.

    A batch is {"image": uint8 (B, C, H, W), "label": int64 (B,), "index": int64 (B,), "epoch": int64 (B,)}
    with label -1 for none. A bad sample is replaced by one chosen by (seed, epoch, its index, attempt),
    whose own index the batch then carries; or dropped (evaluation); or fails the batch. Failing is a
    result, not an exception, so that the main process can raise it with a clean message.
    """

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
        self.source = source
        self.transform = transform
        self.channels = channels
        self.seed = seed
        self.on_bad: OnBadSample = on_bad
        self.cache = cache

    def __getitem__(self, request: Request) -> Loaded:
        """The batch of one request."""
        bad: list[BadSample] = []
        samples: list[tuple[Tensor, int]] = []
        try:
            for index in request.indices.tolist():
                sample = self._load_or_replace(index, request.epoch, bad)
                if sample is not None:
                    samples.append(sample)
        except _FailedError:
            return Loaded(None, bad, True)
        if not samples:
            return Loaded(None, bad, failed=len(bad) >= MAX_IN_A_ROW)
        return Loaded(self._collate(samples, request.epoch), bad, False)

    def picture(self, index: int) -> UInt8[Tensor, "c h w"]:
        """The decoded picture, from memory if it was decoded before; raises BadSampleError."""
        if self.cache is None:
            return decode_picture(self.source.read(index).data, self.channels)
        image = self.cache.get(index)
        if image is None:
            image = decode_picture(self.source.read(index).data, self.channels)
            self.cache.put(index, image)
        return image

    def _load_or_replace(self, index: int, epoch: int, bad: list[BadSample]) -> tuple[Tensor, int] | None:
        chosen = index
        for attempt in range(1, MAX_IN_A_ROW + 1):
            try:
                image = self.picture(chosen)
            except BadSampleError as error:
                bad.append(BadSample(chosen, self.source.key(chosen), str(error)))
            else:
                return self.transform(image, Draws(self.seed, epoch, chosen)), chosen
            if self.on_bad == "drop":
                return None
            if self.on_bad == "raise":
                break
            bits = raw_bits(
                seed=self.seed, stream="replacement", epoch=epoch, index=index, attempt=attempt, count=1
            )
            chosen = int(bits[0] % len(self.source))
        raise _FailedError

    def _collate(self, samples: Sequence[tuple[Tensor, int]], epoch: int) -> Batch:
        index = torch.tensor([chosen for _, chosen in samples])
        return {
            "image": torch.stack([image for image, _ in samples]),
            "label": torch.from_numpy(self.source.labels[index.numpy()]),
            "index": index,
            "epoch": torch.full((len(samples),), epoch),
        }
