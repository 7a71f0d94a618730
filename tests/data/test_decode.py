import io

import numpy as np
import pytest
import torch
from PIL import Image

from maskpre.data.decode import decode_picture
from maskpre.data.sources import BadSampleError

RGB = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str, **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()


def npy(array: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()


def as_bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8).copy()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {})],
)
def test_lossless_formats_give_the_pixels(kind, options):
    image = decode_picture(encoded(RGB, kind, **options), 3)
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), RGB)


def test_jpeg_equals_pillow():
    data = encoded(RGB, "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data.tobytes())))
    assert np.array_equal(decode_picture(data, 3).permute(1, 2, 0).numpy(), expected)


def test_grey_becomes_rgb_and_back():
    grey = encoded(RGB[:, :, 0], "PNG")
    assert np.array_equal(decode_picture(grey, 1)[0].numpy(), RGB[:, :, 0])
    assert np.array_equal(decode_picture(grey, 3).numpy(), np.stack([RGB[:, :, 0]] * 3))
    expected = np.asarray(Image.fromarray(RGB).convert("L")).astype(int)
    assert np.abs(decode_picture(encoded(RGB, "PNG"), 1)[0].numpy() - expected).max() <= 1


def test_alpha_is_dropped():
    rgba = np.dstack([RGB, np.full((12, 10), 7, dtype=np.uint8)])
    assert np.array_equal(decode_picture(encoded(rgba, "PNG"), 3).permute(1, 2, 0).numpy(), RGB)


def test_cmyk_jpeg_becomes_rgb():
    buffer = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(buffer, "JPEG")
    assert decode_picture(as_bytes(buffer.getvalue()), 3).shape == (3, 12, 10)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_arrays_hold_any_number_of_channels(channels):
    array = np.random.default_rng(0).integers(0, 256, (8, 9, channels), dtype=np.uint8)
    assert np.array_equal(decode_picture(npy(array), channels).permute(1, 2, 0).numpy(), array)


def test_pages_of_a_tiff_are_channels():
    pages = [Image.fromarray(RGB[:, :, number % 3]) for number in range(5)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    image = decode_picture(as_bytes(buffer.getvalue()), 5)
    assert np.array_equal(image[4].numpy(), RGB[:, :, 1])


@pytest.mark.parametrize(
    ("data", "channels", "reason"),
    [
        (encoded(RGB, "JPEG", quality=90)[:400], 3, "can't be decoded: "),
        (encoded(RGB, "PNG")[:200], 3, "can't be decoded: "),
        (as_bytes(b"just some text in a file named .jpg"), 3, "is no picture of a known format"),
        (npy(RGB)[:200], 3, "can't be decoded: "),
        (npy(RGB.astype(np.float32)), 3, "holds torch.float32 values; convert it to 8 bits first"),
        (npy(RGB), 5, "has 3 channels, data.channels is 5"),
        (npy(RGB[None]), 3, r"array of shape \(1, 12, 10, 3\), expected \(height, width, channels\)"),
        (
            encoded(RGB[:, :, 0].astype(np.uint16), "PNG"),
            1,
            "holds torch.uint16 values; convert it",
        ),
        (
            encoded(RGB[:, :, 0].astype(np.uint16), "TIFF"),
            3,
            "holds torch.uint16 values; convert it",
        ),
        (npy(np.array([None, 1], dtype=object)), 3, "can't be decoded: Object arrays"),
    ],
)
def test_bad_files_say_what_is_wrong(data, channels, reason):
    with pytest.raises(BadSampleError, match=reason):
        decode_picture(data, channels)
