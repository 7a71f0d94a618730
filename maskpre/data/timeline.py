"""When the frames of a video are shown."""

from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from maskpre.data.sources import BadSampleError

_STEADY = 0.25
_UNSTEADY_SHARE = 0.05


class Timeline(NamedTuple):
    """The frames of a video in the order they are shown.

    `ticks` are presentation times in units of the stream's time base; `keys` marks key frames. Where
    `counted`, the file does not tell which frame is shown when: its frames are numbered as the decoder
    gives them out, from the first on, and `ticks` are those of decoding.
    """

    ticks: Int64[np.ndarray, "n"]
    keys: Bool[np.ndarray, "n"]
    counted: bool = False

    @property
    def is_steady(self) -> bool:
        """Whether at most 5% of the frames come more than 25% early or late: a constant frame rate."""
        gaps = np.diff(self.ticks)
        if gaps.size < 2:
            return True
        usual = np.median(gaps)
        return bool((np.abs(gaps - usual) > _STEADY * usual).mean() <= _UNSTEADY_SHARE)


def format_name(container: InputContainer) -> str:
    """FFmpeg's first name for a file's format: "mov" for mp4, too, "matroska" for WebM."""
    return container.format.name.split(",")[0]


def read_timeline(container: InputContainer, stream: VideoStream, data: NDArray[np.uint8]) -> Timeline:
    """The timeline of a freshly opened file of these bytes, which is read to its end.

    Raises BadSampleError for a file that is cut off or damaged, holds no frame or knows no times.
    """
    expected = _expected_packets(container, stream, data)
    # The last one is empty and has no time: it tells decoders that the file ends.
    present = [packet for packet in container.demux(stream) if packet.size or packet.dts is not None]
    packets = [packet for packet in present if not packet.is_corrupt]
    if len(packets) < expected:
        raise BadSampleError(f"is cut off: {len(packets)} of {expected} frames are there")
    if len(packets) < len(present):
        raise BadSampleError(f"is damaged: {len(present) - len(packets)} of {len(present)} packets are")
    shown = [packet for packet in packets if packet.size and not packet.is_discard]
    if not shown:
        raise BadSampleError("holds no frame")
    times = [packet.pts for packet in shown]
    counted = _is_counted(container, stream, times)
    if counted:
        times = [packet.dts for packet in shown]
    if None in times:
        raise BadSampleError("has frames without a time")
    ticks, places = np.unique(np.array(times, dtype=np.int64), return_index=True)
    return Timeline(ticks, np.array([packet.is_keyframe for packet in shown])[places], counted)


def _expected_packets(container: InputContainer, stream: VideoStream, data: NDArray[np.uint8]) -> int:
    """How many packets the whole file has; 0 if it doesn't tell.

    What an mp4 file declares includes frames that its edit list takes away, and what an AVI file declares
    those that were dropped; their indices don't.
    """
    name = format_name(container)
    # The index of an AVI file is at its end, and missing where that is.
    if name == "mov" or (name == "avi" and _is_whole_riff(data)):
        return min(stream.frames, len(stream.index_entries))
    return stream.frames


def _is_whole_riff(data: NDArray[np.uint8]) -> bool:
    return 8 + int.from_bytes(data[4:8].tobytes(), "little") <= len(data)


def _is_counted(container: InputContainer, stream: VideoStream, times: list[int | None]) -> bool:
    """Whether packets lack presentation times, or have such as FFmpeg made up.

    AVI files store none. Those that FFmpeg gives rise in the order of decoding for some codecs and for
    several frames packed into one, which is another order than that of showing where there are B-frames.
    """
    if None in times:
        return True
    delayed = bool(stream.codec_context.has_b_frames)
    return format_name(container) == "avi" and (delayed or len(set(times)) < len(times))
