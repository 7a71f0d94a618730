"""Shards behind a pipe or URL, read from front to back by the webdataset library."""

import hashlib
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import webdataset
from torch.utils.data import IterableDataset, get_worker_info

from maskpre.data.dataset import MAX_IN_A_ROW, BadSample, Loaded, Sample, collate, too_many
from maskpre.data.decode import decode_picture
from maskpre.data.randomness import Draws, raw_bits
from maskpre.data.remote_shards import RemoteShards, reason
from maskpre.data.sources import BadSampleError, OnError
from maskpre.data.sources.base import PICTURES
from maskpre.data.transforms import Transform


class RemoteBatches(IterableDataset[Loaded]):
    """An endless stream of batches; each worker of each rank reads its own share of the shards.

    The order of shards is a function of (seed, pass, `start_step`), and a buffer of `buffer` samples
    shuffles further. There is no global index: a sample's index is a hash of its key, which crops and
    masks are keyed by.
    """

    def __init__(
        self,
        *,
        urls: list[str],
        reader: RemoteShards,
        transform: Transform,
        channels: int,
        batch_size: int,
        seed: int,
        on_error: OnError,
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
        buffer: int = 1000,
    ) -> None:
        self.urls = urls
        self.reader = reader
        self.transform = transform
        self.channels = channels
        self.batch_size = batch_size
        self.seed = seed
        self.on_error = on_error
        self.start_step = start_step
        self.rank = rank
        self.world = world
        self.buffer = buffer

    def __iter__(self) -> Iterator[Loaded]:
        """Batches of whatever comes next; a shard that can't be read is one bad sample."""
        samples: list[Sample] = []
        bad: list[BadSample] = []
        for event in self._events():
            if isinstance(event, str):
                yield Loaded(None, bad, event)
                return
            if isinstance(event, Sample):
                samples.append(event)
            else:
                bad.append(event)
            if bad and (self.on_error == "raise" or (len(bad) >= MAX_IN_A_ROW and not samples)):
                yield Loaded(None, bad, too_many(bad, f"data.on_error={self.on_error}"))
                return
            if len(samples) == self.batch_size:
                yield Loaded(collate(samples), bad)
                samples, bad = [], []

    def _events(self) -> Iterator[Sample | BadSample | str]:
        """Samples, or what was in their place, pass after pass; at last, why there can be no more."""
        for number in itertools.count():
            good = False
            for raw in self._raw_samples(number):
                event = raw if isinstance(raw, BadSample) else self._sample(raw, number)
                good |= isinstance(event, Sample)
                yield event
            if not good:
                yield f"a pass over {len(self._shards(number))} shards gave no sample"

    def _raw_samples(self, number: int) -> Iterator[dict[str, Any] | BadSample]:
        broken: list[BadSample] = []

        def samples() -> Iterator[dict[str, Any]]:
            for url in self._shards(number):
                try:
                    yield from self.reader.samples(url)
                except Exception as error:
                    broken.append(BadSample(_hash(url), url, reason(error)))

        stream: Iterator[dict[str, Any]] = samples()
        if self.buffer:
            generator = random.Random(int(self._bits("remote/buffer", number, 1)[0]))
            stream = webdataset.shuffle(self.buffer, rng=generator)(stream)
        for raw in stream:
            yield raw
            while broken:
                yield broken.pop()
        yield from broken

    def _shards(self, number: int) -> list[str]:
        worker = get_worker_info()
        workers = 1 if worker is None else worker.num_workers
        share, shares = self.rank * workers + (0 if worker is None else worker.id), self.world * workers
        order = np.argsort(self._bits("remote/shards", number, len(self.urls)), kind="stable")
        return [self.urls[position] for position in order[share::shares]]

    def _bits(self, stream: str, number: int, count: int) -> Any:
        return raw_bits(seed=self.seed, stream=stream, epoch=number, index=self.start_step, count=count)

    def _sample(self, raw: dict[str, Any], number: int) -> Sample | BadSample:
        pictures = [name for name in raw if f".{name}" in PICTURES.suffixes]
        try:
            if not pictures:
                raise BadSampleError(f"has no picture among its members {sorted(raw)}")
            data = np.frombuffer(bytearray(raw[pictures[0]]), dtype=np.uint8)
            image = decode_picture(data, self.channels)
        except BadSampleError as error:
            key = f"{raw['__url__']}:{raw['__key__']}"
            return BadSample(_hash(key), key, str(error))
        index = _hash(raw["__key__"])
        image = self.transform(image, Draws(self.seed, number, index))
        return Sample(image, int(raw.get("cls", -1)), index, number)


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1
