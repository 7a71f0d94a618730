"""ColorMAE's masks: from windows of noise, or from a bank with the crops and flips that were drawn."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskpre.golden.case import CannotReplayError, Case
from maskpre.golden.compare import Replay
from maskpre.golden.plans import plan_tensors
from maskpre.masking.base import count_visible
from maskpre.masking.color import ColorMasking
from maskpre.masking.color_bank import official_windows, windows_to_order
from maskpre.masking.random import RandomMasking
from maskpre.ops.color_noise import Color
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, MaskPlan, Step

COLORS = (*get_args(Color), "random")


@dataclass
class Settings:
    """Side of the grid, share of hidden cells; the colour is what the noise was filtered with."""

    grid: int
    mask_ratio: float
    batch: int
    color: str = "green"
    mask_type: str | None = None


def replay(case: Case) -> Replay:
    """The mask and its noise windows."""
    s = case.settings(Settings)
    check_colors(case, s.color, s.mask_type)
    grid = Grid((s.grid, s.grid), (1, 1))
    plan = given_plan(case, grid=grid, ratio=s.mask_ratio, batch=s.batch)
    windows = _windows(case, grid, s.batch)
    extras = {
        "len_keep": count_visible(grid.num_cells, s.mask_ratio),
        "windows_with_negative_max": _negative(case, windows),
    }
    return Replay(tensors={**plan_tensors(plan), "windows_out": windows}, extras=extras)


def check_colors(case: Case, *colors: str | None) -> None:
    """CannotReplayError for a colour nobody knows."""
    for color in colors:
        if color is not None and color not in COLORS:
            raise CannotReplayError(f"{case.name}: color {color!r} is unknown; known are {', '.join(COLORS)}")


def given_plan(case: Case, *, grid: Grid, ratio: float, batch: int) -> MaskPlan:
    """The plan from what the case was given: windows, a bank with draws, or uniform noise."""
    if "windows" in case.inputs:
        order = windows_to_order(case.input("windows"))
        return MaskPlan.from_order(order, num_visible=count_visible(grid.num_cells, ratio), grid=grid)
    if "bank" in case.inputs:
        return _from_bank(case, grid=grid, ratio=ratio, batch=batch)
    return RandomMasking(grid=grid, ratio=ratio)(_step(case.input("noise")))


def _from_bank(case: Case, *, grid: Grid, ratio: float, batch: int) -> MaskPlan:
    """`ColorMasking` on the bank as a file, with uniform numbers that become the case's crops and flips."""
    bank = case.input("bank")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bank.npz"
        np.savez(file, bank=bank.numpy())
        masking = ColorMasking(grid=grid, ratio=ratio, sampling="official", bank=str(file))
    draws = _draws(case.input("crop"), case.input("flips"), bank, grid)
    per_sample = draws.repeat_interleave(len(bank), dim=0)[:batch]
    return masking(_step(per_sample))


def _draws(
    crop: Int[Tensor, "p 2"], flips: Int[Tensor, "p 2"], bank: Float[Tensor, "s m n"], grid: Grid
) -> Float[Tensor, "p 4"]:
    """Numbers in [0, 1) that become these corners, out of all that fit, and these flips."""
    choices = torch.tensor(bank.shape[1:]) - torch.tensor(grid.shape) + 1
    return torch.cat([(crop + 0.5) / choices, 0.75 - 0.5 * flips], dim=1).double()


def _step(uniform: Float[Tensor, "b n"]) -> Step:
    return Step(batch={}, views={}, noise=GivenNoise({"mask": uniform}), progress=0.0)


def _windows(case: Case, grid: Grid, batch: int) -> Float[Tensor, "b h w"]:
    if "windows" in case.inputs:
        return case.input("windows")
    window = (grid.shape[0], grid.shape[1])
    return official_windows(case.input("bank"), case.input("crop"), case.input("flips"), batch, window)


def _negative(case: Case, windows: Float[Tensor, "b h w"]) -> int:
    """How many windows had a negative maximum; from a bank they are divided by it, so that 1 is the least."""
    if "windows" in case.inputs:
        return int((windows.amax(dim=(1, 2)) < 0).sum())
    return int((windows.amin(dim=(1, 2)) >= 1).sum())
