"""Video files to uint8 tensors."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Literal, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from maskpre.data.sources import BadSampleError
from maskpre.data.timeline import read_timeline

Access = Literal["seek", "sequential"]

_FORMATS = {1: "gray", 3: "rgb24"}


class Frames(NamedTuple):
    """Decoded frames, upright, and the degrees by which they were turned anticlockwise to be so."""

    pixels: UInt8[Tensor, "t c h w"]
    rotation: int


class VideoFile:
    """An open video, decoded by PyAV.

    Opening reads the container's packets but decodes nothing, so frames have exact numbers whatever the
    container says about its length.

    Raises BadSampleError for what is no video, holds none, or is cut off; `read` for damaged frames and for
    such of several sizes.
    """

    def __init__(self, data: NDArray[np.uint8], *, channels: int, access: Access = "seek") -> None:
        self._data = data
        self._file = io.BytesIO(data.tobytes())
        self._channels = channels
        self._access: Access = access
        with naming_faults():
            self._container, self._stream = self._open()
            self.timeline = read_timeline(self._container, self._stream, data)
        self._numbers = {tick: number for number, tick in enumerate(self.timeline.ticks.tolist())}
        self._seen_size: tuple[int, int] | None = None

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
    def size(self) -> tuple[int, int]:
        """Height and width of the frames as the file declares them, before they are turned."""
        return self._stream.codec_context.height, self._stream.codec_context.width

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

    def _decode(self, wanted: Int64[np.ndarray, "t"]) -> Frames:
        """Frames with rising numbers, decoded from the key frame before the first of them on."""
        if self._access == "seek" and not self.timeline.counted:
            frames = self._collect(wanted, self._from_key(int(wanted[0])))
            if frames is not None:
                return frames
        self._restart()
        frames = self._collect(wanted, self._numbered())
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
        size = frame.width, frame.height
        before = self._seen_size = self._seen_size or size
        if size != before:
            raise BadSampleError(
                f"changes its size from {before[0]} x {before[1]} to {size[0]} x {size[1]} pixels"
            )

    def _from_key(self, number: int) -> Iterator[tuple[int, VideoFrame]]:
        """Numbered frames from the key frame before a frame, or from the frame itself; maybe none."""
        keys = self.timeline.keys
        before = np.flatnonzero(keys[: number + 1])
        tick = int(self.timeline.ticks[before[-1] if before.size else 0])
        self._container.seek(tick, stream=self._stream)
        frames = self._numbered()
        first = next(frames, None)
        # Some containers have no index and land behind the place they are sent to. What is decoded from
        # there lacks the frames it refers to, and not every decoder says so.
        if first is not None and 0 <= first[0] <= number and keys[first[0]]:
            yield first
            yield from frames

    def _numbered(self) -> Iterator[tuple[int, VideoFrame]]:
        """The frames that come next, each with its number; -1 for one that is not on the timeline."""
        before = -1
        for count, frame in enumerate(self._container.decode(self._stream)):
            number = count if self.timeline.counted else self._numbers.get(_tick(frame), -1)
            if 0 <= number < before:
                raise BadSampleError("has times in another order than its frames are shown")
            before = max(before, number)
            yield number, frame

    def _collect(
        self, wanted: Int64[np.ndarray, "t"], numbered: Iterator[tuple[int, VideoFrame]]
    ) -> Frames | None:
        """Decode until all wanted frames came; None if some did not."""
        missing = set(wanted.tolist())
        found: dict[int, Tensor] = {}
        rotation = 0
        for number, frame in numbered:
            # Those that are not wanted, too: what is damaged in them, later ones refer to.
            if number >= 0:
                self._check(frame, number)
            if number not in missing:
                continue
            missing.remove(number)
            found[number] = self._to_tensor(frame)
            rotation = frame.rotation
            if not missing:
                break
        if missing:
            return None
        pixels = torch.stack([found[number] for number in wanted.tolist()])
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
