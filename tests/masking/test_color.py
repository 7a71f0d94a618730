"""Masks from colour noise."""

import numpy as np
import pytest
import torch

from maskpre.errors import UserError
from maskpre.masking.color import ColorMasking
from maskpre.masking.color_bank import official_windows, windows_to_order
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.types import Grid, Step

GRID = Grid((6, 7), (16, 16))
SMALL = {"grid": GRID, "ratio": 0.75, "num_images": 3, "image_size": 16}
VISIBLE = 10


def keyed(samples, *, progress=0.0):
    index = torch.arange(samples)
    noise = KeyedNoise(0, epoch=torch.zeros_like(index), index=index)
    return Step(batch={"index": index}, views={}, noise=noise, progress=progress)


def given(draws):
    draws = torch.tensor(draws)
    return Step(batch={}, views={}, noise=GivenNoise({"mask": draws}), progress=0.0)


def save(path, images):
    np.savez(path, images.numpy())
    return str(path)


@pytest.mark.parametrize("color", ["white", "red", "blue", "green", "purple"])
def test_the_highest_noise_stays_visible(color):
    masking = ColorMasking(color=color, **SMALL)
    plan = masking(given([[0.4, 0.25, 0.125, 0.9, 0.9]]))
    window = masking.bank_at(0.0)[1, 4:10, 2:9].flatten()
    assert torch.equal(plan.keep[0], window.argsort(descending=True)[:VISIBLE])


def test_draws_choose_picture_wrapping_crop_and_flips_per_sample():
    masking = ColorMasking(**SMALL)
    bank = masking.bank_at(0.0)
    plan = masking(
        given([[0.0, 0.95, 0.95, 0.9, 0.9], [0.99, 0.0, 0.0, 0.1, 0.9], [0.99, 0.0, 0.0, 0.9, 0.1]])
    )
    windows = torch.stack(
        [
            bank[0].roll((-15, -15), dims=(0, 1))[:6, :7],
            bank[2, :6, :7].flip(1),
            bank[2, :6, :7].flip(0),
        ]
    )
    assert torch.equal(plan.keep, windows_to_order(windows)[:, :VISIBLE])


def neighbours(color):
    """How often two cells side by side share their fate."""
    masking = ColorMasking(color=color, grid=Grid((14, 14), (16, 16)), ratio=0.5, num_images=8)
    mask = masking(keyed(200)).mask.view(200, 14, 14)
    return (mask[:, :, 1:] == mask[:, :, :-1]).float().mean().item()


def test_colours_differ_in_how_hidden_cells_cluster():
    shares = {color: neighbours(color) for color in ("blue", "white", "purple", "red")}
    assert shares["blue"] < 0.4 < shares["white"] < 0.55
    assert shares["red"] > shares["purple"]
    assert shares["red"] > 0.75


def test_every_cell_is_hidden_equally_often():
    share = ColorMasking(**SMALL)(keyed(4000)).mask.float().mean(dim=0)
    assert (share - 32 / 42).abs().max() < 0.03


@pytest.mark.parametrize("samples", [2, 3, 7])
def test_official_sampling_draws_once_per_pass(samples):
    masking = ColorMasking(sampling="official", **SMALL)
    step = keyed(samples)
    first = step.noise.uniform("mask", 4)[::3]
    crop = (first[:, :2] * torch.tensor([11, 10])).long()
    windows = official_windows(masking.bank_at(0.0), crop, (first[:, 2:] < 0.5).long(), samples, (6, 7))
    assert torch.equal(masking(step).keep, windows_to_order(windows)[:, :VISIBLE])


def test_crops_of_a_given_bank_stay_inside(tmp_path):
    images = torch.zeros(1, 8, 8)
    images[:, -1, -1] = 1.0
    masking = ColorMasking(grid=GRID, ratio=0.75, bank=save(tmp_path / "bank.npz", images))
    plan = masking(given([[0.9, 0.999, 0.999, 0.9, 0.9]]))
    assert plan.keep[0, 0] == 41


def test_schedule_changes_colours_by_progress_alone():
    masking = ColorMasking(schedule=[[0.25, "blue"], [0.5, "red"]], **SMALL)
    for progress, color in [(0.5, "red"), (0.0, "green"), (0.249, "green"), (0.25, "blue"), (1.0, "red")]:
        alone = ColorMasking(color=color, **SMALL)
        assert torch.equal(masking(keyed(4, progress=progress)).keep, alone(keyed(4)).keep), progress


def test_epochs_given_as_shares_start_exactly_there():
    masking = ColorMasking(schedule=[[100 / 300, "blue"]], **SMALL)
    steps_per_epoch = 313
    blue, green = masking.get_buffer("bank_blue"), masking.get_buffer("bank_green")
    assert masking.bank_at(100 * steps_per_epoch / (300 * steps_per_epoch)) is blue
    assert masking.bank_at((100 * steps_per_epoch - 1) / (300 * steps_per_epoch)) is green


def test_schedule_reads_a_bank_per_colour(tmp_path):
    for seed, color in enumerate(["green", "blue"]):
        generator = torch.Generator().manual_seed(seed)
        save(tmp_path / f"{color}_noise.npz", torch.rand(2, 9, 9, generator=generator))
    pattern = str(tmp_path / "{color}_noise.npz")
    masking = ColorMasking(grid=GRID, ratio=0.75, bank=pattern, schedule=[[0.5, "blue"]])
    assert not torch.equal(masking.bank_at(0.0), masking.bank_at(0.5))


def test_banks_stay_out_of_checkpoints_and_follow_the_seed():
    masking = ColorMasking(**SMALL)
    assert masking.state_dict() == {}
    assert masking.bank_at(0.0).shape == (3, 16, 16)
    assert not torch.equal(masking.bank_at(0.0), ColorMasking(bank_seed=1, **SMALL).bank_at(0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "pink"}, "noise colour 'pink' is unknown"),
        ({"schedule": [[0.5, "pink"]]}, "noise colour 'pink' is unknown"),
        (
            {"schedule": [[0.5, "blue"], [0.2, "red"]]},
            r"ascending shares of the training in \(0, 1\), got \[0.5, 0.2\]",
        ),
        ({"schedule": [[30, "blue"]]}, r"ascending shares of the training in \(0, 1\), got \[30.0\]"),
        ({"schedule": [[0.5]]}, r"must list pairs \[progress, colour\], got \[\[0.5\]\]"),
        ({"schedule": ["blue"]}, r"must list pairs \[progress, colour\], got \['blue'\]"),
        (
            {"schedule": [[0.5, "red"]], "iterations": 2},
            r"describe one colour, but the schedule has \['green', 'red'\]",
        ),
        ({"schedule": [[0.5, "red"]], "bank": "x.npz"}, "noise bank x.npz must have {color} in its name"),
        ({"sampling": "batch"}, "sampling must be 'per_sample' or 'official', got 'batch'"),
        (
            {"image_size": 6},
            "a grid of 6 x 7 cells needs noise pictures at least as large, the bank's are 6 x 6",
        ),
        (
            {"grid": Grid((8, 6, 7), (2, 16, 16))},
            r"needs a grid of rows and columns, got one of shape \(8, 6, 7\)",
        ),
        ({"ratio": 1.5}, "mask ratio must be between 0 and 1, got 1.5"),
    ],
)
def test_refuses_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        ColorMasking(**{**SMALL, **options})


def test_errors_are_the_users(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        ColorMasking(bank=str(tmp_path / "none.npz"), **SMALL)


def test_a_filter_for_a_given_bank_warns(tmp_path):
    path = save(tmp_path / "bank.npz", torch.rand(1, 8, 8))
    with pytest.warns(
        UserWarning, match="sigmas and iterations have no effect on a noise bank read from a file"
    ):
        ColorMasking(grid=GRID, ratio=0.75, bank=path, iterations=3)
