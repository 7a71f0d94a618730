"""Picture files to uint8 tensors."""

import io

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from maskpre.data.sources import BadSampleError

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG"
_RIFF = b"RIFF"
_NPY = b"\x93NUMPY"
_READ_MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}
_LIBRARY_ERRORS = (RuntimeError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def decode_picture(data: NDArray[np.uint8], channels: int) -> UInt8[Tensor, "c h w"]:
    """Decode one file by its content, whatever its name says.

    JPEG, PNG and WebP become grey (1 channel) or RGB (3); alpha is dropped, EXIF rotation ignored.
    `.npy` files hold (H, W) or (H, W, C) of uint8. Other formats, TIFF with any number of channels or
    pages among them, go through Pillow.

    Raises BadSampleError for damaged files, 16-bit pictures (how to map them to 8 bits is the owner's
    decision) and a wrong number of channels.
    """
    try:
        image = _decode(data, channels)
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
    if start.startswith((_JPEG, _PNG, _RIFF)) and channels in _READ_MODES:
        return decode_image(torch.from_numpy(data), _READ_MODES[channels])
    return _decode_with_pillow(data, channels)


def _decode_with_pillow(data: NDArray[np.uint8], channels: int) -> Tensor:
    with Image.open(io.BytesIO(data.tobytes())) as picture:
        pages = getattr(picture, "n_frames", 1)
        if pages > 1:
            return torch.cat([_page(picture, number) for number in range(pages)])
        if channels in _READ_MODES and not picture.mode.startswith(("I", "F")):
            return _from_array(np.array(picture.convert("L" if channels == 1 else "RGB")))
        return _from_array(np.array(picture))


def _page(picture: Image.Image, number: int) -> Tensor:
    picture.seek(number)
    return _from_array(np.array(picture))


def _from_array(array: NDArray[np.generic]) -> Tensor:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise ValueError(f"array of shape {array.shape}, expected (height, width, channels)")
    return torch.from_numpy(array).permute(2, 0, 1)
