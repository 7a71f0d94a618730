"""Video for a run: what every kind of video data has in common."""

from dataclasses import dataclass, replace
from typing import Literal

from maskpre.data.dataset import MAX_IN_A_ROW, OnBadSample
from maskpre.data.decoders import DecoderChoice, choose_decoder
from maskpre.data.frames import DenseFrames, FrameSampling, SegmentFrames
from maskpre.data.loader import BatchLoader
from maskpre.data.module import PretrainData
from maskpre.data.order import SequentialOrder
from maskpre.data.resume import Layout
from maskpre.data.sources import BadSampleError
from maskpre.data.splits import Split
from maskpre.data.transforms import SideCrop, Transform
from maskpre.data.video import (
    Clips,
    Rotated,
    TrainingClips,
    VariableRate,
    VideoBatches,
    VideoReader,
    ViewClips,
)
from maskpre.errors import UserError


@dataclass(kw_only=True, eq=False, repr=False)
class VideoData(PretrainData):
    """Loaders of clips; what pictures and clips have in common says PretrainData.

    `batch_size` counts videos: with `repeats` a batch holds that many crops of a clip of each.

    Args:
        num_frames: frames of a clip. frame_stride: of them, one in so many of the video ("dense").
        sampling: "dense" or "segments", see DenseFrames and SegmentFrames.
        repeats: crops (and masks) of each decoded training clip.
        decoder: "torchcodec" needs FFmpeg on the system; "auto" takes it if it works, else PyAV.
        min_frames: videos with fewer are bad samples.
        variable_rate: "skip" makes videos without a constant frame rate bad samples, "keep" ignores it.
        rotated: "skip" makes videos that players turn bad samples, "turn" turns them.
    """

    num_frames: int
    frame_stride: int
    sampling: Literal["dense", "segments"] = "dense"
    repeats: int = 1
    decoder: DecoderChoice = "auto"
    min_frames: int = 1
    variable_rate: VariableRate = "skip"
    rotated: Rotated = "skip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise UserError(f"data.channels must be 1 or 3 for video, got {self.channels}")
        for name, value in (("repeats", self.repeats), ("min_frames", self.min_frames)):
            if value < 1:
                raise UserError(f"data.{name} must be at least 1, got {value}")
        self._frames: FrameSampling = (
            DenseFrames(num_frames=self.num_frames, stride=self.frame_stride)
            if self.sampling == "dense"
            else SegmentFrames(num_frames=self.num_frames)
        )

    def view_loader(
        self,
        split: Split,
        *,
        clips: int,
        crops: int,
        batch_size: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> BatchLoader:
        """Every video of `split` once, in order, in `clips` * `crops` views that follow each other.

        Clips are spread evenly over the video, crops over the longer side of frames whose short side is
        `image_size`. `batch_size` counts videos.
        """
        order = SequentialOrder(
            num_samples=len(self.source(split)),
            batch_size=batch_size or self.batch_size,
            rank=rank,
            world=world,
        )
        places = [place / (crops - 1) for place in range(crops)] if crops > 1 else [0.5]
        views = ViewClips(
            sampling=self._frames,
            crops=[SideCrop(size=self.image_size, place=place) for place in places],
            clips=clips,
        )
        return self._loader(self._batches(split, views, self._on_bad("drop")), order, len(order))

    def _layout(self) -> Layout:
        return super()._layout() | {
            "decoder": choose_decoder(self.decoder),
            "repeats": self.repeats,
            "num_frames": self.num_frames,
            "frame_stride": self.frame_stride,
            "sampling": self.sampling,
        }

    def _training_set(self, transform: Transform) -> VideoBatches:
        clips = TrainingClips(sampling=self._frames, transform=transform, repeats=self.repeats)
        return self._batches("train", clips, self._on_bad("replace"))

    def _evaluation_set(self, split: Split, transform: Transform) -> VideoBatches:
        clips = ViewClips(sampling=self._frames, crops=[transform])
        return self._batches(split, clips, self._on_bad("drop"))

    def _batches(self, split: Split, clips: Clips, on_bad: OnBadSample) -> VideoBatches:
        reader = replace(self._reader(split), cache=self._cache(split))
        return VideoBatches(reader=reader, clips=clips, seed=self.seed, on_bad=on_bad)

    def _reader(self, split: Split) -> VideoReader:
        return VideoReader(
            source=self.source(split),
            channels=self.channels,
            decoder=choose_decoder(self.decoder),
            min_frames=self.min_frames,
            variable_rate=self.variable_rate,
            rotated=self.rotated,
        )

    def _first_shape(self, split: Split) -> tuple[int, ...]:
        reader = self._reader(split)
        for index in range(min(len(reader.source), MAX_IN_A_ROW)):
            try:
                return tuple(reader.everything(index).shape)
            except BadSampleError:
                continue
        return self.num_frames, self.channels, self.image_size, self.image_size
