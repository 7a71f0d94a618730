"""From a batch to the views a system works on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Inputs(nn.Module, ABC):
    """Makes named views from a batch; `channels` says which, and how many channels each has."""

    channels: Mapping[str, int]

    @abstractmethod
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The views of a batch."""

    @abstractmethod
    def to_picture(self, name: str, view: Tensor) -> Tensor:
        """A view as uint8 pixels (b, c, h, w); ValueError if the view `name` is no picture."""


class ImageInputs(Inputs):
    """One view, "image": pixels / 255, minus the mean, over the standard deviation, per channel.

    Runs on the device. A floating-point picture is taken as normalised already.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels, std has {len(std)}; they must agree")
        if any(value <= 0 for value in std):
            raise ValueError(f"std must be positive, got {list(std)}")
        self.channels = {"image": len(mean)}
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float()[:, None, None], persistent=False)
        self.register_buffer("shift", shift.float()[:, None, None], persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        """uint8 (b, c, h, w) to normalised floats; refuses a wrong number of channels."""
        if image.shape[1] != len(self.scale):
            raise ValueError(
                f"pictures have {image.shape[1]} channels, mean and std have {len(self.scale)}; set "
                "data.channels, data.mean and data.std to match"
            )
        return image if image.is_floating_point() else torch.addcmul(self.shift, image, self.scale)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The views of a batch."""
        return {"image": self.normalize(batch["image"])}

    def to_picture(self, name: str, view: Tensor) -> Tensor:
        """The inverse of `normalize`, cut off to 0..255."""
        return ((view - self.shift) / self.scale).round().clamp(0, 255).to(torch.uint8)
