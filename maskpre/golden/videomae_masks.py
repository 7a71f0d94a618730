"""The mask generators of VideoMAE and VideoMAE V2: tubes, and running cells for the decoder."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.masking.random import RandomMasking
from maskpre.masking.running_cell import CELLS, RunningCellMasking, running_maps
from maskpre.masking.tube import TubeMasking
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, MaskPlan, Step


@dataclass
class Drawn:
    """So many calls of an official generator for `window` (frames, rows, columns), behind numpy's seed."""

    window: list[int]
    mask_ratio: float
    seed: int
    draws: int


@dataclass
class Settings:
    """The generators of a case."""

    unit: str
    cases: list[Drawn]


def replay(case: Case) -> Replay:
    """Masks from numpy's draws."""
    s = case.settings(Settings)
    if s.unit not in ("tube", "cell"):
        raise CannotReplayError(f"{case.name}: unit must be 'tube' or 'cell', got {s.unit!r}")
    tensors: Tensors = {}
    for i, drawn in enumerate(s.cases):
        grid = Grid((drawn.window[0], drawn.window[1], drawn.window[2]), (2, 16, 16))
        try:
            tensors |= _tubes(i, drawn, grid) if s.unit == "tube" else _cells(i, drawn, grid)
        except ValueError as error:
            raise CannotReplayError(f"{case.name}: {error}") from error
    return Replay(tensors=tensors)


def _step(stream: str, noise: Tensor) -> Step:
    return Step(batch={}, views={}, noise=GivenNoise({stream: noise}), progress=0.0)


def _tubes(i: int, drawn: Drawn, grid: Grid) -> Tensors:
    """Numpy shuffles a row of ones behind zeros, which as noise makes the same choice."""
    cells = grid.shape[1] * grid.shape[2]
    random = np.random.RandomState(drawn.seed)
    rows = np.tile(np.arange(cells) >= cells - int(drawn.mask_ratio * cells), (drawn.draws, 1))
    for row in rows:
        random.shuffle(row)
    masking = TubeMasking(
        grid=grid, spatial=lambda grid: RandomMasking(grid=grid, ratio=drawn.mask_ratio, rounding="up")
    )
    return {f"mask.{i}": masking(_step("mask", torch.from_numpy(rows).double())).mask.to(torch.uint8)}


def _cells(i: int, drawn: Drawn, grid: Grid) -> Tensors:
    """One draw chooses the map; all four are compared too."""
    frames = (grid.shape[0], -1)
    maps = running_maps(grid, int(CELLS * drawn.mask_ratio))
    start = torch.from_numpy(np.random.RandomState(drawn.seed).randint(CELLS, size=drawn.draws))
    masking = RunningCellMasking(
        grid=grid,
        encoder=lambda grid: TubeMasking(
            grid=grid, spatial=lambda grid: RandomMasking(grid=grid, ratio=0.5, rounding="up")
        ),
        decoder_ratio=drawn.mask_ratio,
    )
    noise = GivenNoise(
        {
            "decode": (start[:, None] + 0.5) / CELLS,
            "mask": torch.rand(drawn.draws, grid.shape[1] * grid.shape[2], generator=torch.Generator()),
        }
    )
    plan: MaskPlan = masking(Step(batch={}, views={}, noise=noise, progress=0.0))
    hidden = ~plan.region("decode")
    return {
        f"start.{i}": start,
        f"all_maps.{i}": maps.unflatten(1, frames).to(torch.uint8),
        f"draws.{i}": hidden.unflatten(1, frames).to(torch.uint8),
    }
