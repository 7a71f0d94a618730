"""Shares and choices; tests/golden/hpm has the published masks."""

import pytest
import torch

from maskpre.masking.hard_patches import HardPatchMasking
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, Located, Step

GRID = Grid((4, 4), (8, 8))
COARSE = Grid((2, 2), (16, 16))


def step_with(losses: torch.Tensor, grid: Grid, *, progress: float, cells: int | None = None) -> Step:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(len(losses), grid.num_cells if cells is None else cells, generator=generator)
    step = Step(batch={}, views={}, noise=GivenNoise({"mask": noise}), progress=progress)
    step.predictions["ema"] = {"losses": Located(losses[..., None], grid)}
    return step


@pytest.mark.parametrize(("steps_per_epoch", "ranks"), [(1, 1), (10, 1), (10, 4), (313, 2)])
def test_the_share_is_a_function_of_the_epoch_whatever_the_batch(steps_per_epoch: int, ranks: int) -> None:
    masking = HardPatchMasking(grid=GRID, epochs=8)
    total = 8 * steps_per_epoch * ranks
    shares = [masking.share(step / total) for step in range(total)]
    assert shares == [0.5 * (epoch + 1) / 8 for epoch in range(8) for _ in range(steps_per_epoch * ranks)]


def test_the_share_follows_every_step_or_stays() -> None:
    smooth = HardPatchMasking(grid=GRID, start=0.2, end=1.0)
    assert [smooth.share(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.6, 1.0])
    assert {HardPatchMasking(grid=GRID, start=0.5, end=0.5).share(p) for p in (0.0, 0.3, 1.0)} == {0.5}


def test_the_hardest_are_hidden_and_the_rest_is_random() -> None:
    losses = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    masking = HardPatchMasking(grid=GRID, ratio=0.75, start=0.5, end=0.5)
    step = step_with(losses, GRID, progress=0.4)
    plan = masking(step)
    hardest = losses.argsort(dim=1, descending=True)[:, :6]
    assert plan.mask.gather(1, hardest).all()
    noise = step.noise.uniform("mask", 16)
    for row in range(3):
        others = [cell for cell in noise[row].argsort().tolist() if cell not in hardest[row].tolist()]
        assert plan.keep[row].tolist() == sorted(others[:4])


def test_less_than_one_hard_patch_is_a_random_mask() -> None:
    masking = HardPatchMasking(grid=GRID, epochs=200)
    losses = torch.rand(2, 16)
    step = step_with(losses, GRID, progress=0.0)
    expected = step.noise.uniform("mask", 16).argsort(dim=1)[:, :4].sort(dim=1).values
    assert torch.equal(masking(step).keep, expected)


def test_units_are_chosen_by_their_mean_loss() -> None:
    losses = torch.zeros(1, 16)
    losses[0, [2, 3, 6, 7]] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    losses[0, 8] = 1.5
    masking = HardPatchMasking(grid=GRID, ratio=0.5, start=0.5, end=0.5, unit_size=16)
    plan = masking(step_with(losses, GRID, progress=0.0, cells=4))
    assert plan.unit == COARSE
    assert plan.mask[0, [2, 3, 6, 7]].all()
    assert int(plan.mask.sum()) == 8


def test_losses_of_coarse_cells_hide_whole_cells() -> None:
    masking = HardPatchMasking(grid=GRID, ratio=0.75, start=1.0, end=1.0)
    plan = masking(step_with(torch.tensor([[0.1, 0.4, 0.3, 0.2]]), COARSE, progress=0.0))
    assert (plan.grid, plan.unit) == (GRID, COARSE)
    assert plan.keep.tolist() == [[0, 1, 4, 5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end": 1.5}, r"end must be a share between 0 and 1 of the hidden cells, got 1\.5"),
        ({"start": -0.1}, r"start must be a share between 0 and 1 of the hidden cells, got -0\.1"),
        ({"epochs": 0}, "epochs must be greater than 0, got 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HardPatchMasking(grid=GRID, **options)


@pytest.mark.parametrize("unit_size", [4, 12, 24])
def test_units_that_cut_cells_are_refused(unit_size: int) -> None:
    masking = HardPatchMasking(grid=GRID, unit_size=unit_size)
    with pytest.raises(ValueError, match=rf"unit_size \({unit_size}\) must be a multiple .* \(8 pixels\)"):
        masking.fit(GRID)
