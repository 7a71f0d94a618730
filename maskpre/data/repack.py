"""What becomes of a picture file on its way into a shard."""

import io
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from maskpre.data.decode import decode_picture
from maskpre.data.sources import RawSample
from maskpre.data.transforms import resize_short_side


class Repacked(NamedTuple):
    """A file for a shard: its content, its ending, and its pixels' statistics if they were measured."""

    content: bytes
    extension: str
    moments: Float32[Tensor, "2 c"] | None


class Repack(Protocol):
    """Makes the file for a shard; raises BadSampleError for one that must stay out."""

    def __call__(self, raw: RawSample, extension: str) -> Repacked:
        """The file whose name ended in `extension`, or another in its place."""


@dataclass(frozen=True, kw_only=True)
class PictureRepack:
    """Keeps a picture's file, or reduces it to a short side of `resize` pixels as JPEG of `quality`.

    `decode` opens every picture, so that bad ones are found and statistics known.
    """

    resize: int | None
    quality: int
    channels: int
    decode: bool

    def __call__(self, raw: RawSample, extension: str) -> Repacked:
        """The picture's file, or a smaller picture."""
        content = raw.data.tobytes()
        if not self.decode and self.resize is None:
            return Repacked(content, extension, None)
        image = decode_picture(raw.data, self.channels)
        if self.resize is not None and min(image.shape[1:]) > self.resize:
            image = resize_short_side(image, self.resize, "bicubic")
            content, extension = _encode_jpeg(image, self.quality), ".jpg"
        return Repacked(content, extension, pixel_moments(image) if self.decode else None)


def pixel_moments(image: UInt8[Tensor, "c h w"]) -> Float32[Tensor, "2 c"]:
    """Mean and mean square of a picture per channel, of pixels in [0, 1]."""
    pixels = image.flatten(1).to(torch.float32) / 255
    return torch.stack([pixels.mean(1), pixels.square().mean(1)])


def _encode_jpeg(image: UInt8[Tensor, "c h w"], quality: int) -> bytes:
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
