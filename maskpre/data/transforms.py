"""Cropping and resizing on uint8 tensors, with every random number drawn from the sample's own stream.

A clip (t, c, h, w) is treated as a picture is: all of its frames get the same crop and flip.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from maskpre.data.randomness import Draws
from maskpre.errors import UserError

Interpolation = Literal["bicubic", "bilinear"]

_ATTEMPTS = 10


@runtime_checkable
class Transform(Protocol):
    """Brings one picture or clip to the size the model takes; equal pixels and draws give equal results."""

    def __call__(self, image: UInt8[Tensor, "*t c h w"], draws: Draws) -> UInt8[Tensor, "*t c r s"]:
        """The transformed picture or clip."""


class Box(NamedTuple):
    """A crop: upper left corner, height and width in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: UInt8[Tensor, "*t c h w"]) -> UInt8[Tensor, "*t c r s"]:
        """The part of a picture, or of every frame of a clip."""
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


def resize(
    image: UInt8[Tensor, "*t c h w"], size: tuple[int, int], interpolation: Interpolation
) -> UInt8[Tensor, "*t c r s"]:
    """Antialiased resize in 8-bit arithmetic.

    The kernels are Pillow's, but torch rounds the weights more coarsely: up to a threefold reduction the
    pixels of noise differ by at most 2 levels of 255 from Pillow's, at a sixfold one by 4.
    """
    if image.shape[-2:] == size:
        return image
    batched = image if image.ndim == 4 else image[None]
    resized = F.interpolate(batched, size=size, mode=interpolation, antialias=True)
    return resized if image.ndim == 4 else resized[0]


def resize_short_side(
    image: UInt8[Tensor, "*t c h w"], short_side: int, interpolation: Interpolation
) -> UInt8[Tensor, "*t c r s"]:
    """`resize` to a short side of `short_side` pixels, keeping the aspect ratio."""
    height, width = image.shape[-2:]
    short = min(height, width)
    return resize(image, (height * short_side // short, width * short_side // short), interpolation)


class RandomResizedCrop:
    """A random part of the picture, resized to a square, and a horizontal flip.

    Args:
        size: side of the result, pixels.
        scale: smallest and largest area of the crop as a share of the picture's.
        ratio: smallest and largest width / height of the crop.
        interpolation: how the crop is resized.
        flip: probability of the flip.
        fit: what happens to a crop that does not fit into the picture. "retry" draws up to ten times, then
            takes the largest centred one (Inception's crop, as in torchvision); "clamp" cuts the first
            draw's sides down to the picture's (one draw as in TensorFlow; MAE's linear probe).
    """

    def __init__(
        self,
        *,
        size: int,
        scale: Sequence[float] = (0.2, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: Interpolation = "bicubic",
        flip: float = 0.5,
        fit: Literal["retry", "clamp"] = "retry",
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"crop scale must be two rising shares in (0, 1], got {list(scale)}")
        if not 0 < ratio[0] <= ratio[1]:
            raise UserError(f"crop ratio must be two rising positive numbers, got {list(ratio)}")
        self.size = size
        self.scale = (scale[0], scale[1])
        self.ratio = (ratio[0], ratio[1])
        self.interpolation: Interpolation = interpolation
        self.flip = flip
        self.fit = fit

    def __call__(self, image: UInt8[Tensor, "*t c h w"], draws: Draws) -> UInt8[Tensor, "*t c s s"]:
        """Crop, resize, perhaps flip."""
        box = self.box(image.shape[-2], image.shape[-1], draws)
        part = box.cut(image)
        part = resize(part, (self.size, self.size), self.interpolation)
        return maybe_flip(part, self.flip, draws)

    def box(self, height: int, width: int, draws: Draws) -> Box:
        """The part of a picture of `height` x `width` that these draws choose."""
        draw = draws.uniform("crop", 2 * _ATTEMPTS + 2).tolist()
        attempts = zip(draw[0:-2:2], draw[1:-2:2], strict=True)
        for area_draw, ratio_draw in attempts:
            crop_height, crop_width = self._sides(height * width, area_draw, ratio_draw)
            if self.fit == "clamp":
                crop_height, crop_width = min(crop_height, height), min(crop_width, width)
            if 0 < crop_height <= height and 0 < crop_width <= width:
                top = int(draw[-2] * (height - crop_height + 1))
                left = int(draw[-1] * (width - crop_width + 1))
                return Box(top, left, crop_height, crop_width)
        return self._largest_centred(height, width)

    def _sides(self, area: int, area_draw: float, ratio_draw: float) -> tuple[int, int]:
        target = area * (self.scale[0] + area_draw * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = math.exp(low + ratio_draw * (high - low))
        return round(math.sqrt(target / ratio)), round(math.sqrt(target * ratio))

    def _largest_centred(self, height: int, width: int) -> Box:
        crop_height = min(height, round(width / self.ratio[0]))
        crop_width = min(width, round(height * self.ratio[1]))
        return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


class RandomPadCrop:
    """Reflect `padding` pixels around the picture, cut out a random `size` square, and flip.

    For small pictures that already have about the right size; `padding=0` on pictures of `size` leaves
    the flip alone. Pictures smaller than `size` after padding are an error.
    """

    def __init__(self, *, size: int, padding: int = 4, flip: float = 0.5) -> None:
        self.size = size
        self.padding = padding
        self.flip = flip

    def __call__(self, image: UInt8[Tensor, "*t c h w"], draws: Draws) -> UInt8[Tensor, "*t c s s"]:
        """Crop and perhaps flip."""
        vertical, horizontal = draws.uniform("crop", 2)
        rows = self._positions(image.shape[-2], vertical)
        columns = self._positions(image.shape[-1], horizontal)
        return maybe_flip(image.index_select(-2, rows).index_select(-1, columns), self.flip, draws)

    def _positions(self, length: int, draw: float) -> Int64[Tensor, " s"]:
        room = length + 2 * self.padding - self.size
        if room < 0 or self.padding >= length:
            raise UserError(
                f"a side of {length} pixels with {self.padding} of padding can't hold a crop of {self.size}"
            )
        positions = np.arange(self.size) + int(draw * (room + 1)) - self.padding
        last = length - 1
        return torch.from_numpy(last - np.abs(last - np.abs(positions)))


class CentreCrop:
    """Resize the short side to int(size / crop_ratio), keep the central `size` square; nothing is random."""

    def __init__(
        self, *, size: int, crop_ratio: float = 0.875, interpolation: Interpolation = "bicubic"
    ) -> None:
        if not 0 < crop_ratio <= 1:
            raise UserError(f"crop_ratio must be in (0, 1], got {crop_ratio}")
        self.size = size
        self.short_side = int(size / crop_ratio)
        self.interpolation: Interpolation = interpolation

    def __call__(self, image: UInt8[Tensor, "*t c h w"], draws: Draws) -> UInt8[Tensor, "*t c s s"]:
        """Resize and crop; `draws` is not used."""
        image = resize_short_side(image, self.short_side, self.interpolation)
        top, left = (round((side - self.size) / 2) for side in image.shape[-2:])
        return Box(top, left, self.size, self.size).cut(image)


class SideCrop:
    """Resize the short side to `size`, keep a square at `place` along the longer one; nothing is random.

    `place` 0 is the left or upper end, 1 the right or lower one: 0, 0.5 and 1 are the three test crops of
    video recognition.
    """

    def __init__(self, *, size: int, place: float = 0.5, interpolation: Interpolation = "bilinear") -> None:
        if not 0 <= place <= 1:
            raise UserError(f"place must be in [0, 1], got {place}")
        self.size = size
        self.place = place
        self.interpolation: Interpolation = interpolation

    def __call__(self, image: UInt8[Tensor, "*t c h w"], draws: Draws) -> UInt8[Tensor, "*t c s s"]:
        """Resize and crop; `draws` is not used."""
        image = resize_short_side(image, self.size, self.interpolation)
        top, left = (int(self.place * (side - self.size)) for side in image.shape[-2:])
        return Box(top, left, self.size, self.size).cut(image)


def maybe_flip(
    image: UInt8[Tensor, "*t c h w"], probability: float, draws: Draws
) -> UInt8[Tensor, "*t c h w"]:
    """The picture or clip, mirrored left to right with a probability."""
    if probability and draws.uniform("flip", 1)[0] < probability:
        return image.flip(-1)
    return image
