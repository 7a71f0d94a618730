"""From a batch to the views a system works on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


class Inputs(nn.Module, ABC):
    """Makes named views from a batch; `channels` says which, and how many channels each has.

    `dims` is 2 if they are pictures, 3 if they are clips.
    """

    channels: Mapping[str, int]
    dims: ClassVar[int] = 2

    @abstractmethod
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The views of a batch."""

    @abstractmethod
    def to_picture(self, name: str, view: Tensor) -> Tensor:
        """A view as uint8 pixels (b, c, [t,] h, w); ValueError if the view `name` has no pixels."""


class PixelInputs(Inputs):
    """One view, `view`, of the batch's tensor of that name: pixels / 255, minus the mean, over the standard
    deviation, per channel.

    Runs on the device. Floating-point pixels are taken as normalised already.
    """

    view: ClassVar[str]
    scale: Tensor
    shift: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels, std has {len(std)}; they must agree")
        if any(value <= 0 for value in std):
            raise ValueError(f"std must be positive, got {list(std)}")
        self.channels = {self.view: len(mean)}
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        shape = (-1,) + (1,) * self.dims
        self.register_buffer("scale", scale.float().view(shape), persistent=False)
        self.register_buffer("shift", shift.float().view(shape), persistent=False)

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (b, c, ...) to normalised floats; refuses a wrong number of channels."""
        if pixels.shape[1] != len(self.scale):
            raise ValueError(
                f"the data have {pixels.shape[1]} channels, mean and std have {len(self.scale)}; set "
                "data.channels, data.mean and data.std to match"
            )
        return pixels if pixels.is_floating_point() else torch.addcmul(self.shift, pixels, self.scale)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The views of a batch."""
        return {self.view: self.normalize(batch[self.view])}

    def to_picture(self, name: str, view: Tensor) -> Tensor:
        """The inverse of `normalize`, cut off to 0..255."""
        return ((view - self.shift) / self.scale).round().clamp(0, 255).to(torch.uint8)


class ImageInputs(PixelInputs):
    """Pictures (b, c, h, w)."""

    view = "image"
    dims = 2


class VideoInputs(PixelInputs):
    """Clips (b, c, t, h, w)."""

    view = "video"
    dims = 3
