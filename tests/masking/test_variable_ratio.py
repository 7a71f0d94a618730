"""Numbers of visible cells between the two ratios, all of them as likely."""

import pytest
import torch

from maskpre.masking.variable_ratio import VariableRatioMasking
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.types import Grid, Step

GRID = Grid((4, 5), (16, 16))


def plan_of(noise, **options):
    step = Step(batch={}, views={}, noise=noise, progress=0.0)
    return VariableRatioMasking(grid=GRID, **options)(step)


def test_every_number_between_the_ratios_is_as_likely():
    index = torch.arange(6000)
    plan = plan_of(KeyedNoise(0, epoch=torch.zeros_like(index), index=index), low=0.5, high=0.75)
    counts = plan.lengths.bincount(minlength=GRID.num_cells)
    assert counts[:5].sum() == counts[11:].sum() == 0
    assert (counts[5:11] - 1000).abs().max() < 150


def test_the_lowest_noise_stays_visible():
    noise = GivenNoise({"mask": torch.arange(20.0).flip(0)[None] / 20, "mask/ratio": torch.tensor([[0.999]])})
    plan = plan_of(noise, low=0.5, high=0.75)
    assert plan.lengths.tolist() == [10]
    assert plan.keep.tolist() == [list(range(19, 9, -1))]
    assert plan.hide[0, :10].sort().values.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.7, 0.7, r"low \(0.7\) must be less than high \(0.7\)"),
        (0.5, 1.0, "mask ratio must be between 0 and 1, got 1.0"),
        (0.01, 0.99, "mask ratio 0.99 leaves 0 of 20 cells visible"),
    ],
)
def test_ratios_that_leave_no_choice_are_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        VariableRatioMasking(grid=GRID, low=low, high=high)
