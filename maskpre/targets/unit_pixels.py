"""Pixels in their own scale of 0 to 1 as a target."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskpre.ops.patchify import patches_at, unpatchify
from maskpre.targets.base import PictureTarget
from maskpre.targets.pixels import Statistics, centred
from maskpre.types import Grid, Located, Step

EPS = 1e-6


def _channel_statistics(pixels: Float[Tensor, "b n r c"]) -> Statistics:
    """Mean and unbiased standard deviation of each cell's channels."""
    mean, squares = centred(pixels, dim=2)
    return Statistics(mean, (squares / (pixels.shape[2] - 1)).sqrt() + EPS)


class UnitPixelTarget(PictureTarget):
    """Pixels of every tubelet or patch in [0, 1], in the order ([frame,] row, column, channel).

    The view's normalisation by `mean` and `std` is undone first (VideoMAE, Tong et al., NeurIPS 2022).
    `normalize` "channel" then standardises each cell's values of each channel by their own mean and unbiased
    deviation, to which 1e-6 is added outside the root; "none" leaves them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        grid: Grid,
        in_chans: int,
        mean: Sequence[float],
        std: Sequence[float],
        normalize: Literal["none", "channel"] = "channel",
        view: str = "video",
    ) -> None:
        super().__init__(grid=grid, dim=prod(grid.stride) * in_chans, reads={view: in_chans})
        if not len(mean) == len(std) == in_chans:
            raise ValueError(
                f"mean has {len(mean)} and std {len(std)} values for {in_chans} channels; they must agree"
            )
        if normalize not in ("none", "channel"):
            raise ValueError(f"normalize must be 'none' or 'channel', got {normalize!r}")
        self.in_chans, self.normalize, self.view = in_chans, normalize, view
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)

    def pixels(self, step: Step, ids: Int[Tensor, "b n"] | None = None) -> Float[Tensor, "b n r c"]:
        """All r pixels of every cell, or of the cells `ids`, in [0, 1]."""
        view = step.views[self.view]
        cells = patches_at(view, self.grid, ids).unflatten(2, (-1, self.in_chans))
        return cells * self.std.to(view.dtype) + self.mean.to(view.dtype)

    def forward(self, step: Step) -> Located:
        """The cells of the step's view."""
        return self._cells(step, None)

    def at(self, step: Step, like: Located) -> Located:
        """The cells of the view where `like` is."""
        return self._cells(step, like.ids if like.grid == self.grid else None)

    def _cells(self, step: Step, ids: Int[Tensor, "b n"] | None) -> Located:
        pixels = self.pixels(step, ids)
        if self.normalize == "channel":
            pixels = _channel_statistics(pixels).remove(pixels)
        return Located(pixels.flatten(2), self.grid, ids=ids)

    def to_image(self, values: Float[Tensor, "b l k"], step: Step) -> Float[Tensor, "b c *size"]:
        """See `PictureTarget.to_image`."""
        values = values.unflatten(2, (-1, self.in_chans))
        if self.normalize == "channel":
            values = _channel_statistics(self.pixels(step)).restore(values)
        return unpatchify(((values - self.mean) / self.std).to(values.dtype).flatten(2), self.grid)
