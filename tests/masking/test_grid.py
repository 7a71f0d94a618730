"""Regular grid of visible cells."""

import pytest
import torch

from maskpre.masking.grid import GridMasking
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, Step

GRID = Grid((4, 6), (16, 16))


def plan_of(masking, draws):
    noise = GivenNoise({"mask": draws})
    return masking(Step(batch={"index": torch.arange(len(draws))}, views={}, noise=noise, progress=0.0))


def test_fixed_offset_shows_the_first_cell_of_every_square():
    plan = plan_of(GridMasking(grid=GRID, period=2), torch.zeros(2, 0))
    assert plan.keep.tolist() == [[0, 2, 4, 12, 14, 16]] * 2


def test_random_offset_shows_the_same_drawn_cell_of_all_squares():
    draws = torch.tensor([[0.2, 0.2], [0.2, 0.7], [0.7, 0.2], [0.9, 0.9]])
    plan = plan_of(GridMasking(grid=GRID, period=2, offset="random"), draws)
    assert plan.keep[:, 0].tolist() == [0, 1, 6, 7]
    assert torch.equal(plan.keep - plan.keep[:, :1], plan.keep[:1].expand(4, -1))


def test_frames_count_as_an_axis():
    masking = GridMasking(grid=Grid((2, 2, 2), (2, 16, 16)), period=2)
    assert plan_of(masking, torch.zeros(1, 0)).keep.tolist() == [[0]]


@pytest.mark.parametrize("period", [1, 4])
def test_period_must_divide_the_grid(period):
    with pytest.raises(ValueError, match=rf"period must be at least 2 and divide \(4, 6\), got {period}"):
        GridMasking(grid=GRID, period=period)


def test_an_unknown_offset_is_refused():
    with pytest.raises(ValueError, match="offset must be 'fixed' or 'random', got 'any'"):
        GridMasking(grid=GRID, offset="any")
