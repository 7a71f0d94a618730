"""Which library decodes video."""

import logging
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from maskpre.data.decode_torchcodec import TorchcodecFile
from maskpre.data.decode_video import Access, VideoFile
from maskpre.data.encode_video import Quality, encode_mp4
from maskpre.data.sources import BadSampleError
from maskpre.errors import UserError

log = logging.getLogger(__name__)

DecoderName = Literal["pyav", "torchcodec"]
DecoderChoice = DecoderName | Literal["auto"]

_FILES: dict[DecoderName, type[VideoFile]] = {"pyav": VideoFile, "torchcodec": TorchcodecFile}


def open_video(
    data: NDArray[np.uint8], *, channels: int, decoder: DecoderName, access: Access = "seek"
) -> VideoFile:
    """Open the bytes of a video file for a decoder; raises BadSampleError."""
    return _FILES[decoder](data, channels=channels, access=access)


@cache
def choose_decoder(choice: DecoderChoice) -> DecoderName:
    """The decoder to use: torchcodec where it really decodes, else PyAV. The first call logs it.

    Raises UserError if `choice` is "torchcodec" and that does not work.
    """
    trouble = "" if choice == "pyav" else torchcodec_trouble()
    if choice == "torchcodec" and trouble:
        raise UserError(
            f"data.decoder=torchcodec does not work here: {trouble}; install it "
            "(pip install 'maskpre[torchcodec]') and FFmpeg (apt-get install ffmpeg), or data.decoder=pyav"
        )
    chosen: DecoderName = "pyav" if choice == "pyav" or trouble else "torchcodec"
    log.info("video is decoded by %s%s", chosen, f" ({trouble})" if trouble else "")
    return chosen


@cache
def torchcodec_trouble() -> str:
    """Why torchcodec can't decode on this machine; empty if it can.

    Importing it tells nothing: it looks for FFmpeg's libraries when it opens the first file.
    """
    black = [VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8)) for _ in range(2)]
    content = encode_mp4(black, rate=Fraction(8), quality=Quality("qp", 30), gop=2)
    data = np.frombuffer(bytearray(content), dtype=np.uint8)
    try:
        with TorchcodecFile(data, channels=3) as video:
            video.read(np.arange(2))
    except ImportError:
        return "torchcodec is not installed"
    except (OSError, RuntimeError, TypeError, BadSampleError) as error:
        return f"torchcodec fails: {str(error).strip().splitlines()[0]}"
    return ""
