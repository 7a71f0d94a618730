"""Reading banks, cutting windows, and the official sampling against golden cases."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maskpre.errors import UserError
from maskpre.masking.base import count_visible
from maskpre.masking.color_bank import (
    check_window,
    cut_windows,
    load_bank,
    official_windows,
    windows_to_order,
)
from maskpre.types import Grid, MaskPlan

GOLDEN = Path(__file__).parents[1] / "golden" / "colormae"


def read(case):
    settings = json.loads((GOLDEN / case / "case.json").read_text())["hyperparameters"]
    return (
        settings,
        load_file(GOLDEN / case / "inputs.safetensors"),
        load_file(GOLDEN / case / "outputs.safetensors"),
    )


def windows_of(case):
    settings, inputs, outputs = read(case)
    if "windows" in inputs:
        return inputs["windows"]
    size = int(outputs["mask"].shape[1] ** 0.5)
    return official_windows(inputs["bank"], inputs["crop"], inputs["flips"], settings["batch"], (size, size))


@pytest.mark.parametrize("case", ["mask_windows", "mask_bank", "model_green"])
def test_official_masks(case):
    settings, _, outputs = read(case)
    windows = windows_of(case)
    order = windows_to_order(windows)
    grid = Grid(tuple(windows.shape[1:]), (16, 16))
    num_visible = count_visible(grid.num_cells, settings["mask_ratio"])
    plan = MaskPlan.from_order(order, num_visible=num_visible, grid=grid)
    assert torch.equal(order.argsort(dim=1), outputs["ids_restore"])
    assert torch.equal(plan.mask.float(), outputs["mask"])
    if "ids_keep" in outputs:
        assert torch.equal(plan.keep, outputs["ids_keep"])
        assert torch.equal(windows, outputs["windows_out"])


def by_hand(bank, crop, flips, batch, window):
    """One pass after the other, each on the whole bank, as the paper's code describes itself."""
    passes = []
    for (row, column), (mirror, overturn) in zip(crop.tolist(), flips.tolist(), strict=True):
        windows = bank[:, row : row + window[0], column : column + window[1]]
        windows = windows.flip(2) if mirror else windows
        passes.append(windows.flip(1) if overturn else windows)
    windows = torch.cat(passes)[:batch]
    return windows / windows.flatten(1).max(dim=1).values[:, None, None]


@pytest.mark.parametrize("batch", [1, 5, 6, 15])
@pytest.mark.parametrize("window", [(4, 4), (3, 5), (8, 7)])
def test_official_windows_repeat_the_bank_with_a_new_crop_per_pass(batch, window):
    generator = torch.Generator().manual_seed(batch)
    bank = torch.randn(5, 8, 7, generator=generator)
    passes = -(-batch // 5)
    crop = torch.stack(
        [
            torch.randint(size - cut + 1, (passes,), generator=generator)
            for size, cut in zip((8, 7), window, strict=True)
        ],
        dim=1,
    )
    flips = torch.randint(2, (passes, 2), generator=generator)
    made = official_windows(bank, crop, flips, batch, window)
    assert torch.equal(made, by_hand(bank, crop, flips, batch, window))


def test_a_negative_maximum_reverses_the_order():
    bank = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]], [[1.0, 2.0], [3.0, 4.0]]])
    zeros = torch.zeros(1, 2, dtype=torch.long)
    windows = official_windows(bank, zeros, zeros, 2, (2, 2))
    assert windows_to_order(windows).tolist() == [[3, 2, 1, 0], [3, 2, 1, 0]]


def test_cut_windows_wrap_and_mirror():
    images = torch.arange(24.0).view(2, 3, 4)
    cut = cut_windows(
        images,
        picture=torch.tensor([0, 1, 1]),
        corner=torch.tensor([[2, 3], [0, 0], [1, 1]]),
        flip=torch.tensor([[False, False], [True, False], [False, True]]),
        window=(2, 3),
    )
    assert cut[0].tolist() == [[11, 8, 9], [3, 0, 1]]
    assert cut[1].tolist() == [[14, 13, 12], [18, 17, 16]]
    assert cut[2].tolist() == [[21, 22, 23], [17, 18, 19]]


def test_load_bank_reads_the_first_array(tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 5, 6))
    np.savez(tmp_path / "bank.npz", images, np.zeros(2))
    bank = load_bank(tmp_path / "bank.npz")
    assert bank.dtype == torch.float32
    assert np.array_equal(bank.numpy(), images.astype(np.float32))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 6)), r"must have shape \(pictures, rows, columns\), got \(5, 6\)"),
        (np.zeros((0, 5, 6)), r"must have shape \(pictures, rows, columns\), got \(0, 5, 6\)"),
        (np.full((1, 5, 6), np.nan), "must hold finite numbers, got values of type float64"),
        (np.full((1, 5, 6), "a"), "must hold finite numbers, got values of type <U1"),
    ],
)
def test_load_bank_refuses_other_arrays(tmp_path, array, message):
    np.savez(tmp_path / "bank.npz", array)
    with pytest.raises(UserError, match=rf"noise bank .*bank\.npz {message}"):
        load_bank(tmp_path / "bank.npz")


def test_load_bank_refuses_what_is_no_npz(tmp_path):
    with pytest.raises(UserError, match=r"noise bank .*none\.npz does not exist; leave masking\.bank null"):
        load_bank(tmp_path / "none.npz")
    np.save(tmp_path / "bank.npy", np.zeros((1, 5, 6)))
    with pytest.raises(UserError, match=r"noise bank .*bank\.npy is not an \.npz file"):
        load_bank(tmp_path / "bank.npy")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(UserError, match=r"empty\.npz holds no array"):
        load_bank(tmp_path / "empty.npz")


@pytest.mark.parametrize("window", [(6, 6), (5, 7)])
def test_check_window_names_both_sizes(window):
    with pytest.raises(
        UserError, match=rf"a grid of {window[0]} x {window[1]} cells .* the bank's are 5 x 6"
    ):
        check_window(window, images=torch.zeros(1, 5, 6))
