"""The picture itself as a target."""

from math import prod
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskpre.ops.patchify import patches_at, patchify, unpatchify
from maskpre.targets.base import PictureTarget
from maskpre.types import Grid, Located, Step

Normalize = Literal["none", "patch", "window"]
EPS = 1e-6


class Statistics(NamedTuple):
    """What a normalisation takes out of a picture."""

    mean: Tensor
    std: Tensor

    def remove(self, values: Tensor) -> Tensor:
        """Values without them."""
        return (values - self.mean) / self.std

    def restore(self, values: Tensor) -> Tensor:
        """The inverse of `remove`."""
        return values * self.std + self.mean


def centred(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The mean along a dimension, which stays, and the sum of squares about it."""
    mean = values.mean(dim=dim, keepdim=True)
    # Some times faster on a CPU than torch's var_mean, and as exact: the mean is taken out first.
    return mean, torch.linalg.vector_norm(values - mean, dim=dim, keepdim=True).square()


def patch_statistics(patches: Float[Tensor, "b l k"]) -> Statistics:
    """Mean and unbiased standard deviation of each patch (MAE, He et al. 2022, section 3)."""
    mean, squares = centred(patches, dim=-1)
    return Statistics(mean, (squares / (patches.shape[-1] - 1) + EPS).sqrt())


def window_statistics(image: Float[Tensor, "b c h w"], window: int) -> Statistics:
    """Mean and deviation of the pixels of a `window` x `window` square round each pixel, per channel.

    The unbiased variance over the pixels of the square that lie inside the picture; the way SimMIM's
    authors normalise targets in later runs (Xie et al. 2023, "On Data Scaling in MIM").
    """
    ones = torch.ones_like(image[:1, :1])
    pool = nn.AvgPool2d(window, stride=1, padding=window // 2, count_include_pad=False)
    # The average of ones over the padded square, times its size, is how many pixels lie inside.
    inside = nn.functional.avg_pool2d(ones, window, stride=1, padding=window // 2) * window**2
    mean, square = pool(image), pool(image**2)
    variance = ((square - mean**2) * inside / (inside - 1)).clamp(min=0)
    return Statistics(mean, (variance + EPS).sqrt())


class PixelTarget(PictureTarget):
    """Pixels of every patch, in the order (row, column, channel).

    `normalize`: "none" leaves the normalised picture as it is, "patch" standardises each patch with its own
    statistics (MAE), "window" each pixel with those of a sliding odd `window` (SimMIM's later runs).
    """

    def __init__(
        self,
        *,
        grid: Grid,
        in_chans: int,
        normalize: Normalize = "none",
        window: int = 47,
        view: str = "image",
    ) -> None:
        super().__init__(grid=grid, dim=prod(grid.stride) * in_chans, reads={view: in_chans})
        if normalize == "window" and (window < 3 or window % 2 == 0):
            raise ValueError(f"window must be odd and at least 3 pixels, got {window}")
        if normalize == "window" and len(grid.shape) != 2:
            raise ValueError("normalize='window' is for pictures; for clips use 'patch' or 'none'")
        self.normalize, self.window, self.view = normalize, window, view

    def forward(self, step: Step) -> Located:
        """The patches of the step's view."""
        return self._patches(step, None)

    def at(self, step: Step, like: Located) -> Located:
        """The patches where `like` is."""
        return self._patches(step, like.ids if like.grid == self.grid else None)

    def _patches(self, step: Step, ids: Int[Tensor, "b n"] | None) -> Located:
        image = step.views[self.view]
        if self.normalize == "window":
            image = window_statistics(image, self.window).remove(image)
        patches = patches_at(image, self.grid, ids)
        if self.normalize == "patch":
            patches = patch_statistics(patches).remove(patches)
        return Located(patches, self.grid, ids=ids)

    def to_image(self, values: Float[Tensor, "b l k"], step: Step) -> Float[Tensor, "b c *size"]:
        """See `PictureTarget.to_image`."""
        image = step.views[self.view]
        if self.normalize == "patch":
            values = patch_statistics(patchify(image, self.grid)).restore(values)
        picture = unpatchify(values, self.grid)
        return (
            window_statistics(image, self.window).restore(picture) if self.normalize == "window" else picture
        )
