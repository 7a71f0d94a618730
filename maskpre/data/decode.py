"""Picture files to uint8 tensors."""

import io
from typing import Literal

import numpy as np
import simplejpeg
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from maskpre.data.sources import BadSampleError

_JPEG = b"\xff\xd8\xff"
_NPY = b"\x93NUMPY"
_JPEG_COLOURS: dict[int, Literal["GRAY", "RGB"]] = {1: "GRAY", 3: "RGB"}
_PILLOW_MODES = {1: "L", 3: "RGB"}
_LIBRARY_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def decode_picture(data: NDArray[np.uint8], channels: int) -> UInt8[Tensor, "c h w"]:
    """Decode one file by its content, whatever its name says.

    Pictures become grey (1 channel) or RGB (3); alpha is dropped, EXIF rotation ignored. Any number of
    channels comes from `.npy` files of uint8 (H, W) or (H, W, C), or as many pages of a TIFF.

    Raises BadSampleError for damaged files, 16-bit pictures (how to map them to 8 bits is the owner's
    decision) and a wrong number of channels.
    """
    try:
        image = _decode(data, channels)
    except UnidentifiedImageError as error:
        raise BadSampleError("is no picture of a known format") from error
    except _LIBRARY_ERRORS as error:
        reason = str(error).strip().split("\n")[0]
        raise BadSampleError(f"can't be decoded: {reason}") from error
    if image.dtype != torch.uint8:
        raise BadSampleError(f"holds {image.dtype} values; convert it to 8 bits first")
    if image.shape[0] != channels:
        raise BadSampleError(f"has {image.shape[0]} channels, data.channels is {channels}")
    return image


def _decode(data: NDArray[np.uint8], channels: int) -> Tensor:
    start = data[:6].tobytes()
    if start == _NPY:
        return _from_array(np.load(io.BytesIO(data.tobytes()), allow_pickle=False))
    if start.startswith(_JPEG) and channels in _JPEG_COLOURS:
        try:
            return _from_array(simplejpeg.decode_jpeg(data, _JPEG_COLOURS[channels]))
        except ValueError:
            # Also raised for harmless flaws, such as stray bytes; Pillow refuses only what is incomplete.
            return _decode_with_pillow(data, channels)
    return _decode_with_pillow(data, channels)


def _decode_with_pillow(data: NDArray[np.uint8], channels: int) -> Tensor:
    with Image.open(io.BytesIO(data.tobytes())) as picture:
        pages = getattr(picture, "n_frames", 1)
        if pages == channels > 1:
            return torch.cat([_page(picture, number) for number in range(pages)])
        deep = picture.mode.startswith(("I", "F"))
        if deep or channels not in _PILLOW_MODES:
            return _from_array(np.array(picture))
        return _from_array(np.array(picture.convert(_PILLOW_MODES[channels])))


def _page(picture: Image.Image, number: int) -> Tensor:
    picture.seek(number)
    return _from_array(np.array(picture))


def _from_array(array: NDArray[np.generic]) -> Tensor:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise ValueError(f"array of shape {array.shape}, expected (height, width, channels)")
    return torch.from_numpy(array).permute(2, 0, 1)
