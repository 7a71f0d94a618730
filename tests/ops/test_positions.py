import math

import pytest
import torch
from timm.layers.pos_embed_rel import gen_relative_position_index

from maskpre.ops.positions import relative_codes, relative_offset, sincos_1d, sincos_2d


def angle(position, k, width):
    return position / 10000 ** (2 * k / width)


def test_one_axis_has_sines_then_cosines():
    table = sincos_1d(torch.tensor([0.0, 1.0, 7.0]), 6)
    assert table.dtype is torch.float64
    for row, position in enumerate([0, 1, 7]):
        for k in range(3):
            assert table[row, k].item() == pytest.approx(math.sin(angle(position, k, 6)), abs=1e-15)
            assert table[row, 3 + k].item() == pytest.approx(math.cos(angle(position, k, 6)), abs=1e-15)


@pytest.mark.parametrize("first", ["column", "row"])
def test_two_axes_lie_side_by_side(first):
    table = sincos_2d((2, 3), 8, first=first)
    assert table.shape == (6, 8)
    assert table.dtype is torch.float32
    for cell in range(6):
        row, col = divmod(cell, 3)
        order = (col, row) if first == "column" else (row, col)
        expected = torch.cat([sincos_1d(torch.tensor([float(index)]), 4)[0] for index in order])
        torch.testing.assert_close(table[cell], expected.float(), rtol=0.0, atol=0.0)


def test_widths_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="divisible by 4, got 10"):
        sincos_2d((2, 2), 10)
    with pytest.raises(ValueError, match="even width per axis, got 5"):
        sincos_1d(torch.zeros(1), 5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 4)])
def test_codes_number_displacements_as_timm_does(shape):
    codes = relative_codes(shape)
    rows = codes[:, None] - codes + relative_offset(shape)
    assert torch.equal(rows, gen_relative_position_index(shape, class_token=False).to(rows.dtype))
