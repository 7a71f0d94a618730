"""Cells chosen by noise of a chosen spectrum."""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskpre.errors import UserError
from maskpre.masking.base import ScoreMasking
from maskpre.masking.color_bank import check_window, cut_windows, load_bank, official_windows, window_scores
from maskpre.ops.color_noise import Color, choose_spectrum, color_noise
from maskpre.types import Grid, Noise, Step

Schedule = tuple[tuple[float, Color], ...]


def check_schedule(color: Color, schedule: Sequence[tuple[float, Color]]) -> Schedule:
    """Every colour with the progress it starts at, `color` at 0.

    Raises UserError unless the entries are pairs whose starts ascend within (0, 1).
    """
    if any(isinstance(entry, str) or len(entry) != 2 for entry in schedule):
        raise UserError(f"colour schedule must list pairs [progress, colour], got {list(schedule)}")
    starts = [float(start) for start, _ in schedule]
    if any(late <= early for early, late in zip([0.0, *starts], [*starts, 1.0], strict=True)):
        raise UserError(
            f"colour schedule must start at ascending shares of the training in (0, 1), got {starts}"
        )
    return ((0.0, color), *((start, name) for start, (_, name) in zip(starts, schedule, strict=True)))


def check_source(colors: set[Color], *, bank: str | None, filtered: bool) -> None:
    """Refuse one file or one filter for several colours; warn about a filter (`filtered`) for a file."""
    if len(colors) > 1 and filtered:
        raise UserError(f"sigmas and iterations describe one colour, but the schedule has {sorted(colors)}")
    if len(colors) > 1 and bank is not None and "{color}" not in bank:
        raise UserError(
            f"noise bank {bank} must have {{color}} in its name to serve the colours {sorted(colors)}"
        )
    if bank is not None and filtered:
        warnings.warn("sigmas and iterations have no effect on a noise bank read from a file", stacklevel=3)


def pick_corners(
    uniform: Float[Tensor, "b 2"], *, images: Float[Tensor, "s m n"], grid: Grid, wraps: bool
) -> Int[Tensor, "b 2"]:
    """First row and column of windows: anywhere in pictures that wrap, else so that the window fits."""
    sizes = zip(images.shape[1:], grid.shape, strict=True)
    choices = [size if wraps else size - cells + 1 for size, cells in sizes]
    return torch.stack([(uniform[:, axis] * num).long() for axis, num in enumerate(choices)], dim=1)


class ColorMasking(ScoreMasking):
    """Keeps the cells where a window of coloured noise is highest (ColorMAE, Hinojosa et al. 2024).

    The noise comes from a bank of `num_images` periodic pictures of `image_size` x `image_size` samples, made
    once from `bank_seed` (about 1 s on one CPU core at the defaults), or from the authors' .npz file `bank`;
    "{color}" in its name stands for the colour in use. The bank is no part of checkpoints.

    `sampling` "per_sample" draws picture, crop and flips for every sample. "official" repeats the authors'
    code: pictures in order and one crop and flip pair per pass over the bank, drawn by the pass's first
    sample, so that a sample's mask depends on its place in the batch.

    `schedule` lists [progress, colour] with ascending shares of the training in (0, 1): from there on that
    colour replaces `color`, like the official 'epoch_K' entries at K / epochs. `sigmas` (in cells) and
    `iterations` replace the filter of a single colour.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        ratio: float,
        color: Color = "green",
        sampling: Literal["per_sample", "official"] = "per_sample",
        schedule: Sequence[tuple[float, Color]] = (),
        bank: str | None = None,
        num_images: int = 256,
        image_size: int = 64,
        bank_seed: int = 0,
        sigmas: Sequence[float] | None = None,
        iterations: int | None = None,
        stream: str = "mask",
    ) -> None:
        super().__init__(grid=grid, ratio=ratio, stream=stream)
        if len(grid.shape) != 2:
            raise UserError(f"colour masking needs a grid of rows and columns, got one of shape {grid.shape}")
        if sampling not in ("per_sample", "official"):
            raise UserError(f"sampling must be 'per_sample' or 'official', got {sampling!r}")
        self.sampling, self.schedule = sampling, check_schedule(color, schedule)
        self.window, self.wraps = (grid.shape[0], grid.shape[1]), bank is None
        colors = {name for _, name in self.schedule}
        check_source(colors, bank=bank, filtered=sigmas is not None or iterations is not None)
        for name in sorted(colors):
            spectrum = choose_spectrum(name, sigmas=sigmas, iterations=iterations)
            if bank is None:
                images = color_noise(spectrum, num=num_images, size=image_size, seed=bank_seed)
            else:
                images = load_bank(bank.replace("{color}", name))
            check_window(self.window, images=images)
            self.register_buffer(f"bank_{name}", images, persistent=False)

    def bank_at(self, progress: float) -> Float[Tensor, "s m n"]:
        """The bank in use at a share of the training."""
        color = [name for start, name in self.schedule if start <= progress][-1]
        return self.get_buffer(f"bank_{color}")

    def scores(self, step: Step) -> Float[Tensor, "b l"]:
        """The negated noise of one window per sample."""
        images = self.bank_at(step.progress)
        if self.sampling == "official":
            return window_scores(self._draw_official(images, step.noise))
        return window_scores(self._draw_per_sample(images, step.noise))

    def _draw_per_sample(self, images: Tensor, noise: Noise) -> Float[Tensor, "b h w"]:
        uniform = noise.uniform(self.stream, 5)
        return cut_windows(
            images,
            picture=(uniform[:, 0] * images.shape[0]).long(),
            corner=pick_corners(uniform[:, 1:3], images=images, grid=self.grid, wraps=self.wraps),
            flip=uniform[:, 3:] < 0.5,
            window=self.window,
        )

    def _draw_official(self, images: Tensor, noise: Noise) -> Float[Tensor, "b h w"]:
        uniform = noise.uniform(self.stream, 4)
        first = uniform[:: images.shape[0]]
        crop = pick_corners(first[:, :2], images=images, grid=self.grid, wraps=False)
        flips = (first[:, 2:] < 0.5).long()
        return official_windows(images, crop, flips, uniform.shape[0], self.window)
