"""Crops that come back: a function of the sample and of a number below a bound."""

from dataclasses import replace

from jaxtyping import UInt8
from torch import Tensor

from maskpre.data.randomness import Draws
from maskpre.data.transforms import Transform


class RepeatedCrops:
    """A transform that gives a sample in epoch e what it gave in epoch e mod `count`."""

    def __init__(self, transform: Transform, *, count: int) -> None:
        self.transform, self.count = transform, count

    def __call__(self, image: UInt8[Tensor, "c h w"], draws: Draws) -> UInt8[Tensor, "c s t"]:
        """See `Transform`."""
        return self.transform(image, replace(draws, epoch=draws.epoch % self.count))
