"""What becomes of a video file on its way into a shard."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Float32, Int64
from torch import Tensor

from maskpre.data.decode_video import VideoFile, naming_faults
from maskpre.data.encode_video import Quality, encode_mp4
from maskpre.data.repack import Repacked, pixel_moments
from maskpre.data.sources import RawSample

_MEASURED_EVERY = 16
_USUAL_RATE = Fraction(25)


@dataclass(frozen=True, kw_only=True)
class VideoRepack:
    """Re-encodes a video as H.264 in mp4, without sound, upright and at a constant frame rate.

    With neither `resize` nor `gop` the file is kept; it is then only checked, if `decode` says so.

    Args:
        resize: short side in pixels that larger videos are reduced to; None keeps the size.
        gop: frames from one key frame to the next; None for 12.
        crf: constant rate factor, see Quality.
        decode: go through every frame also where the file is kept, so that bad videos are found.
    """

    resize: int | None
    gop: int | None
    crf: int
    decode: bool

    @property
    def encodes(self) -> bool:
        """Whether the file is replaced."""
        return self.resize is not None or self.gop is not None

    def __call__(self, raw: RawSample, extension: str) -> Repacked:
        """The video's file, or another in its place."""
        if not self.encodes and not self.decode:
            return Repacked(raw.data.tobytes(), extension, None)
        measured: list[Tensor] = []
        with naming_faults(), VideoFile(raw.data, channels=3) as video:
            frames = _measuring(video.frames(), measured)
            if self.encodes:
                rate = video.rate or _USUAL_RATE
                ready = (self._prepared(frame) for frame in _at_rate(frames, video, rate))
                quality = Quality("crf", self.crf)
                content, extension = encode_mp4(ready, rate=rate, quality=quality, gop=self.gop or 12), ".mp4"
            else:
                deque(frames, maxlen=0)
                content = raw.data.tobytes()
        return Repacked(content, extension, torch.stack(measured).mean(0) if self.decode else None)

    def _prepared(self, frame: VideoFrame) -> VideoFrame:
        """Upright, in its final size with even sides, in the colour space that untagged H.264 is read in."""
        if frame.rotation:
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels, np.uint8), format="rgb24")
        short = min(frame.height, frame.width)
        scale = 1.0 if self.resize is None else min(1.0, self.resize / short)
        height, width = (max(2, 2 * round(side * scale / 2)) for side in (frame.height, frame.width))
        return frame.reformat(
            width=width,
            height=height,
            format="yuv420p",
            interpolation="BICUBIC",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
        )


def _measuring(frames: Iterator[VideoFrame], measured: list[Float32[Tensor, "2 3"]]) -> Iterator[VideoFrame]:
    """Pass frames on; every 16th leaves its moments in `measured`."""
    for number, frame in enumerate(frames):
        if number % _MEASURED_EVERY == 0:
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).movedim(-1, 0)
            measured.append(pixel_moments(pixels))
        yield frame


def _at_rate(frames: Iterator[VideoFrame], video: VideoFile, rate: Fraction) -> Iterator[VideoFrame]:
    """Frames of an unsteady video repeated or left out so that `rate` per second show what it showed."""
    if video.timeline.is_steady:
        yield from frames
        return
    for frame, times in zip(frames, _showings(video, rate).tolist(), strict=True):
        for _ in range(times):
            yield frame


def _showings(video: VideoFile, rate: Fraction) -> Int64[np.ndarray, "n"]:
    """How often each frame is shown when a picture is taken `rate` times a second."""
    seconds = video.timeline.ticks * float(video.time_base)
    count = 1 + int((seconds[-1] - seconds[0]) * float(rate) + 0.5)
    taken = seconds[0] + np.arange(count) / float(rate)
    shown = np.searchsorted(seconds, taken + 1e-6, side="right") - 1
    return np.bincount(shown, minlength=len(seconds))
