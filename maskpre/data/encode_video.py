"""Frames to mp4 files."""

import io
from collections.abc import Iterable

import av
import numpy as np
from jaxtyping import UInt8

Frame = UInt8[np.ndarray, "h w 3"]


def encode_mp4(frames: Iterable[Frame], *, rate: int, crf: int, gop: int) -> bytes:
    """H.264 (libx264) in yuv420p.

    Args:
        frames: RGB of one even height and width.
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
        for number, pixels in enumerate(frames):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
