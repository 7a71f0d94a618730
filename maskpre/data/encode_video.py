"""Frames to mp4 files."""

import io
from collections.abc import Iterable
from fractions import Fraction

import av
from av.video.frame import PictureType, VideoFrame


def encode_mp4(frames: Iterable[VideoFrame], *, rate: Fraction, crf: int, gop: int) -> bytes:
    """H.264 (libx264) in yuv420p, frame after frame at a constant rate.

    Args:
        frames: of one even height and width; their own times are ignored.
        rate: frames per second.
        crf: constant rate factor in 0 (lossless) to 51.
        gop: frames from one key frame to the next, which bounds what a seek has to decode.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # One thread, so that equal frames make equal files.
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast"})
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
