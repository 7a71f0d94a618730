"""From requests to batches of clips."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from maskpre.data.dataset import Batches, OnBadSample, Sample
from maskpre.data.decode_video import Frames, VideoFile
from maskpre.data.decoders import DecoderName, open_video
from maskpre.data.frames import FrameSampling, Positions
from maskpre.data.pixel_cache import PixelCache
from maskpre.data.randomness import Draws
from maskpre.data.sources import BadSampleError, Source
from maskpre.data.transforms import Transform

VariableRate = Literal["skip", "keep"]
Rotated = Literal["skip", "turn"]
Clip = UInt8[Tensor, "t c h w"]


@dataclass(frozen=True, kw_only=True)
class VideoReader:
    """Reads frames of the videos of a source, and says which videos are not fit for use.

    Args:
        source: of encoded files.
        channels: 1 (grey) or 3 (RGB).
        decoder: "pyav" or "torchcodec".
        min_frames: videos with fewer are too short.
        variable_rate: "skip" refuses videos whose frames don't come at a steady pace, "keep" counts their
            frames as if they did.
        rotated: "skip" refuses videos that a player would turn, "turn" turns them.
        cache: keeps all frames of videos of its shape.
    """

    source: Source
    channels: int
    decoder: DecoderName
    min_frames: int = 1
    variable_rate: VariableRate = "skip"
    rotated: Rotated = "skip"
    cache: PixelCache | None = None

    def read(self, index: int, choose: "Clips", draws: Draws) -> list[Clip]:
        """The chosen clips of video `index`; raises BadSampleError."""
        cached = None if self.cache is None else self.cache.get(index)
        if cached is not None:
            return _taken(cached, choose.positions(len(cached), draws))
        with self._open(index) as video:
            positions = choose.positions(len(video), draws)
            if self.cache is None or not _fits(video, self.cache):
                pixels = self._pixels(video.read(positions.reshape(-1)))
                return list(pixels.unflatten(0, positions.shape))
            everything = self._pixels(video.read(np.arange(len(video))))
        self.cache.put(index, everything)
        return _taken(everything, positions)

    def everything(self, index: int) -> Clip:
        """All frames of video `index`; raises BadSampleError."""
        with self._open(index) as video:
            return self._pixels(video.read(np.arange(len(video))))

    @contextmanager
    def _open(self, index: int) -> Iterator[VideoFile]:
        data = self.source.read(index).data
        with open_video(data, channels=self.channels, decoder=self.decoder) as video:
            if len(video) < self.min_frames:
                raise BadSampleError(
                    f"is too short: {len(video)} frames, data.min_frames is {self.min_frames}"
                )
            if self.variable_rate == "skip" and not video.timeline.is_steady:
                raise BadSampleError("has a variable frame rate (data.variable_rate=keep takes it as it is)")
            yield video

    def _pixels(self, frames: Frames) -> Clip:
        if self.rotated == "skip" and frames.rotation % 360:
            raise BadSampleError(f"is rotated by {frames.rotation} degrees (data.rotated=turn turns it)")
        return frames.pixels


def _taken(everything: Clip, positions: Positions) -> list[Clip]:
    return list(everything[torch.from_numpy(positions)])


def _fits(video: VideoFile, cache: PixelCache) -> bool:
    """Whether a video can have the shape of the cache, as far as is known before it is decoded and turned."""
    length, _, *sides = cache.shape
    return len(video) == length and sorted(video.size) == sorted(sides)


class Clips(ABC):
    """Which clips are taken from a video, and what samples become of them."""

    @abstractmethod
    def positions(self, length: int, draws: Draws) -> Positions:
        """Frame numbers of each clip in a video of `length` frames."""

    @abstractmethod
    def samples(self, clips: Sequence[Clip], draws: Draws) -> list[tuple[Clip, int]]:
        """Transformed clips, each with the epoch that keys its further random numbers."""


@dataclass(frozen=True, kw_only=True)
class TrainingClips(Clips):
    """One random clip, transformed `repeats` times: repeated augmentation (Hoffer et al., arXiv 1901.09335).

    Repeat r of epoch e draws its crop and its mask as epoch e * repeats + r, so all of them differ.
    """

    sampling: FrameSampling
    transform: Transform
    repeats: int = 1

    def positions(self, length: int, draws: Draws) -> Positions:
        """One clip."""
        return self.sampling.random(length, draws)[None]

    def samples(self, clips: Sequence[Clip], draws: Draws) -> list[tuple[Clip, int]]:
        """`repeats` crops of it."""
        epochs = [draws.epoch * self.repeats + repeat for repeat in range(self.repeats)]
        return [(self.transform(clips[0], Draws(draws.seed, epoch, draws.index)), epoch) for epoch in epochs]


@dataclass(frozen=True, kw_only=True)
class ViewClips(Clips):
    """`clips` clips spread over the video with every one of `crops`: test views, one after another."""

    sampling: FrameSampling
    crops: Sequence[Transform]
    clips: int = 1

    def positions(self, length: int, draws: Draws) -> Positions:
        """All clips."""
        return self.sampling.spread(length, self.clips)

    def samples(self, clips: Sequence[Clip], draws: Draws) -> list[tuple[Clip, int]]:
        """Every crop of every clip."""
        return [(crop(clip, draws), draws.epoch) for clip in clips for crop in self.crops]


class VideoBatches(Batches):
    """Batches of clips, (B, C, T, H, W) under "video"; the samples of one video follow each other."""

    view = "video"

    def __init__(self, *, reader: VideoReader, clips: Clips, seed: int, on_bad: OnBadSample) -> None:
        super().__init__(source=reader.source, seed=seed, on_bad=on_bad)
        self.reader = reader
        self.clips = clips

    def samples(self, index: int, epoch: int) -> list[Sample]:
        """The clips of one video."""
        draws = Draws(self.seed, epoch, index)
        label = int(self.source.labels[index])
        clips = self.clips.samples(self.reader.read(index, self.clips, draws), draws)
        return [Sample(clip.movedim(0, 1), label, index, number) for clip, number in clips]
