"""Targets asked for some of their cells."""

import pytest
import torch

from maskpre.targets.pixels import PixelTarget
from maskpre.targets.unit_pixels import UnitPixelTarget
from maskpre.types import Grid, Located, Step, align

GRID = Grid.over((6, 8), (3, 2))
UNIT = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "view": "image"}
MADE = {
    "pixels": lambda: PixelTarget(grid=GRID, in_chans=3, normalize="patch"),
    "windows": lambda: PixelTarget(grid=GRID, in_chans=3, normalize="window", window=3),
    "unit pixels": lambda: UnitPixelTarget(grid=GRID, in_chans=3, **UNIT),
}


@pytest.fixture
def step():
    image = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    return Step(batch={}, views={"image": image}, noise=None, progress=0.0)


@pytest.mark.parametrize("name", MADE)
def test_values_at_some_cells_are_those_among_all(step, name):
    target, ids = MADE[name](), torch.tensor([[5, 0, 7], [1, 2, 6]])
    like = Located(torch.zeros(2, 3, 1), GRID, ids)
    found = target.at(step, like)
    assert found.ids is ids
    torch.testing.assert_close(found.tokens, align(target(step), like=like), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MADE)
def test_another_grid_has_no_share_in_the_values(step, name):
    # Objectives say what is wrong with grids that differ.
    like = Located(torch.zeros(2, 1, 1), Grid.over((6, 8), (6, 8)), torch.zeros(2, 1, dtype=torch.long))
    found = MADE[name]().at(step, like)
    assert (found.grid, found.ids) == (GRID, None)
