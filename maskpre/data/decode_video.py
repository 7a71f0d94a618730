"""Video files to uint8 tensors."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from operator import itemgetter
from typing import Literal, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from maskpre.data.sources import BadSampleError

Access = Literal["seek", "sequential"]

_FORMATS = {1: "gray", 3: "rgb24"}
_STEADY = 0.25
_UNSTEADY_SHARE = 0.05


class Timeline(NamedTuple):
    """The frames of a video in the order they are shown.

    `ticks` are presentation times in units of the stream's time base; `keys` marks key frames.
    """

    ticks: Int64[np.ndarray, "n"]
    keys: Bool[np.ndarray, "n"]

    @property
    def is_steady(self) -> bool:
        """Whether at most 5% of the frames come more than 25% early or late: a constant frame rate."""
        gaps = np.diff(self.ticks)
        if gaps.size < 2:
            return True
        usual = np.median(gaps)
        return bool((np.abs(gaps - usual) > _STEADY * usual).mean() <= _UNSTEADY_SHARE)


class Frames(NamedTuple):
    """Decoded frames, upright, and the degrees by which they were turned anticlockwise to be so."""

    pixels: UInt8[Tensor, "t c h w"]
    rotation: int


class VideoFile:
    """An open video, decoded by PyAV.

    Opening reads the container's packets but decodes nothing, so frames have exact numbers whatever the
    container says about its length.

    Raises BadSampleError for what is no video, holds none, or is cut off; `read` for damaged frames.
    """

    def __init__(self, data: NDArray[np.uint8], *, channels: int, access: Access = "seek") -> None:
        self._data = data
        self._file = io.BytesIO(data.tobytes())
        self._channels = channels
        self._access: Access = access
        with naming_faults():
            self._container, self._stream = self._open()
            self.timeline = self._read_timeline()

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __len__(self) -> int:
        return len(self.timeline.ticks)

    @property
    def rate(self) -> Fraction | None:
        """Frames per second on average, if the file tells."""
        return self._stream.average_rate

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return self._stream.time_base or Fraction(1)

    def frames(self) -> Iterator[VideoFrame]:
        """All frames in turn, as they are decoded; raises BadSampleError at the first fault."""
        count = 0
        with naming_faults():
            self._restart()
            for count, frame in enumerate(self._container.decode(self._stream), 1):
                self._check(frame, count - 1)
                yield frame
        if count < len(self):
            raise BadSampleError(f"can't be decoded: {count} of {len(self)} frames came")

    def read(self, positions: Int64[np.ndarray, "t"]) -> Frames:
        """The frames with these numbers, in any order and repeated where they are."""
        wanted, places = np.unique(positions, return_inverse=True)
        with naming_faults():
            frames = self._decode(wanted)
        return Frames(frames.pixels[torch.from_numpy(places)], frames.rotation)

    def _open(self) -> tuple[InputContainer, VideoStream]:
        self._file.seek(0)
        container = av.open(self._file, mode="r", metadata_errors="ignore")
        streams = container.streams
        for stream in streams.video:
            if not stream.disposition & Disposition.attached_pic:
                stream.codec_context.thread_count = 1
                return container, stream
        held = " and ".join(sorted({stream.type for stream in streams})) or "nothing"
        raise BadSampleError(f"holds no video, but {held}")

    def _read_timeline(self) -> Timeline:
        packets = [p for p in self._container.demux(self._stream) if p.size and not p.is_corrupt]
        declared = self._stream.frames
        if len(packets) < declared:
            raise BadSampleError(f"is cut off: {len(packets)} of {declared} frames are there")
        shown = [packet for packet in packets if not packet.is_discard]
        if not shown:
            raise BadSampleError("holds no frame")
        # AVI files know only the order of decoding, which is the order of showing in what they can hold.
        times = [packet.dts if packet.pts is None else packet.pts for packet in shown]
        if None in times:
            raise BadSampleError("has frames without a time")
        ticks, places = np.unique(np.array(times, dtype=np.int64), return_index=True)
        return Timeline(ticks, np.array([packet.is_keyframe for packet in shown])[places])

    def _decode(self, wanted: Int64[np.ndarray, "t"]) -> Frames:
        """Frames with rising numbers, decoded from the key frame before the first of them on."""
        if self._access == "seek":
            self._container.seek(self._key_tick(int(wanted[0])), stream=self._stream)
            frames = self._collect(wanted)
            if frames is not None:
                return frames
        # Some containers have no index and land behind the place they are sent to.
        self._restart()
        frames = self._collect(wanted)
        if frames is None:
            raise BadSampleError(f"can't be decoded: not all of frames {wanted.tolist()} came")
        return frames

    def _restart(self) -> None:
        self._container.close()
        self._container, self._stream = self._open()

    def _check(self, frame: VideoFrame, number: int) -> None:
        if frame.is_corrupt:
            raise BadSampleError(f"has a damaged frame, number {number}")
        if frame.rotation % 90:
            raise BadSampleError(f"is rotated by {frame.rotation} degrees, which is no quarter turn")

    def _key_tick(self, number: int) -> int:
        """When the key frame before a frame, or the frame itself, is shown."""
        keys = np.flatnonzero(self.timeline.keys[: number + 1])
        return int(self.timeline.ticks[keys[-1] if keys.size else 0])

    def _collect(self, wanted: Int64[np.ndarray, "t"]) -> Frames | None:
        """Decode until all wanted frames came; None if some did not."""
        places = {int(self.timeline.ticks[number]): place for place, number in enumerate(wanted.tolist())}
        found: list[tuple[int, Tensor]] = []
        rotation = 0
        for frame in self._container.decode(self._stream):
            place = places.pop(_tick(frame), None)
            if place is None:
                continue
            self._check(frame, int(wanted[place]))
            found.append((place, self._to_tensor(frame)))
            rotation = frame.rotation
            if not places:
                break
        if places:
            return None
        pixels = torch.stack([pixels for _, pixels in sorted(found, key=itemgetter(0))])
        return Frames(pixels.rot90(rotation // 90, dims=(1, 2)).movedim(-1, 1), rotation)

    def _to_tensor(self, frame: VideoFrame) -> UInt8[Tensor, "h w c"]:
        pixels = torch.from_numpy(frame.to_ndarray(format=_FORMATS[self._channels]))
        return pixels if pixels.ndim == 3 else pixels[..., None]


def _tick(frame: VideoFrame) -> int:
    tick = frame.dts if frame.pts is None else frame.pts
    return -1 if tick is None else tick


@contextmanager
def naming_faults() -> Iterator[None]:
    """Turn what FFmpeg finds wrong with a file into BadSampleError."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadSampleError(f"can't be decoded: {reason}") from error
