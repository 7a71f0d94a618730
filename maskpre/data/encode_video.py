"""Frames to mp4 files."""

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal, NamedTuple

import av
from av.video.frame import PictureType, VideoFrame


class Quality(NamedTuple):
    """How much is lost, from 0 (nothing) to 51.

    "crf" is a constant rate factor, which shifts bits between frames by how they move; "qp" is a constant
    quantiser, which codes all alike.
    """

    mode: Literal["crf", "qp"]
    value: int


def encode_mp4(frames: Iterable[VideoFrame], *, rate: Fraction, quality: Quality, gop: int) -> bytes:
    """H.264 (libx264) in yuv420p, frame after frame at a constant rate.

    Args:
        frames: of one even height and width; their own times are ignored.
        rate: frames per second.
        quality: of the pictures.
        gop: frames from one key frame to the next, which bounds what a seek has to decode. With 1 and a
            constant quantiser no frame depends on another.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # One thread, so that equal frames make equal files.
        options = {quality.mode: str(quality.value), "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.thread_count = 1
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.height, frame.width
            frame.pts, frame.time_base = number, 1 / rate
            # A decoded frame would otherwise be a key frame where it was one before.
            frame.pict_type = PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
