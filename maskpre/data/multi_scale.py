"""The crop of video pretraining."""

from collections.abc import Sequence
from itertools import product

from jaxtyping import UInt8
from torch import Tensor

from maskpre.data.randomness import Draws
from maskpre.data.transforms import Box, Interpolation, maybe_flip, resize
from maskpre.errors import UserError

_SNAP = 3
_CORNERS_AND_CENTRE = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
_SIDES = ((0, 2), (4, 2), (2, 4), (2, 0))
_QUARTERS = ((1, 1), (3, 1), (1, 3), (3, 3))
_PLACES = _CORNERS_AND_CENTRE + _SIDES + _QUARTERS
"""The thirteen places of a crop, in quarters of the room there is: (across, down)."""


class MultiScaleCrop:
    """A crop of one of a few sizes at one of thirteen fixed places, resized (TSN, arXiv 1608.00859).

    VideoMAE's transform for pretraining, which it calls GroupMultiScaleCrop; all frames get the same crop. A
    side less than 3 pixels from `size` becomes `size`, as far as the picture reaches, so that nothing is
    interpolated.

    Args:
        size: side of the result, pixels.
        scales: shares of the short side that width and height may have, in falling order.
        max_distort: how many places in `scales` width and height may lie apart.
        interpolation: how the crop is resized.
        flip: probability of a horizontal flip.
    """

    def __init__(
        self,
        *,
        size: int,
        scales: Sequence[float] = (1, 0.875, 0.75, 0.66),
        max_distort: int = 1,
        interpolation: Interpolation = "bilinear",
        flip: float = 0.0,
    ) -> None:
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise UserError(f"scales must be shares in (0, 1], got {list(scales)}")
        if max_distort < 0:
            raise UserError(f"max_distort must be at least 0, got {max_distort}")
        self.size = size
        self.scales = tuple(scales)
        self.max_distort = max_distort
        self.interpolation: Interpolation = interpolation
        self.flip = flip

    def __call__(self, image: UInt8[Tensor, "*t c h w"], draws: Draws) -> UInt8[Tensor, "*t c s s"]:
        """Crop, resize, perhaps flip."""
        part = self.box(image.shape[-2], image.shape[-1], draws).cut(image)
        part = resize(part, (self.size, self.size), self.interpolation)
        return maybe_flip(part, self.flip, draws)

    def box(self, height: int, width: int, draws: Draws) -> Box:
        """The part of a picture of `height` x `width` that these draws choose."""
        size_draw, place_draw = draws.uniform("crop", 2)
        boxes = self.sizes(height, width)
        crop_height, crop_width = boxes[int(size_draw * len(boxes))]
        across, down = _PLACES[int(place_draw * len(_PLACES))]
        top = (height - crop_height) // 4 * down
        left = (width - crop_width) // 4 * across
        return Box(top, left, crop_height, crop_width)

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The (height, width) of crops of a picture, all equally likely."""
        short = min(height, width)
        sides = [max(1, int(short * scale)) for scale in self.scales]
        sides = [min(self.size, short) if abs(side - self.size) < _SNAP else side for side in sides]
        pairs = product(enumerate(sides), repeat=2)
        return [(tall, wide) for (i, tall), (j, wide) in pairs if abs(i - j) <= self.max_distort]
