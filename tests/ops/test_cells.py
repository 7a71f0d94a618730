"""Cells of a map as a batch of their own, and back."""

import pytest
import torch

from maskpre.ops.cells import gather_cells, scatter_cells

KEEP = torch.tensor([[5, 0], [2, 3]])
SHAPE = (2, 3)


def feature_map():
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_cells_are_cut_out_in_the_plans_order():
    x = feature_map()
    cells = gather_cells(x, KEEP, SHAPE)
    expected = [x[0, :, 3:, 4:], x[0, :, :3, :2], x[1, :, :3, 4:], x[1, :, 3:, :2]]
    assert torch.equal(cells, torch.stack(expected))
    assert cells.is_contiguous(memory_format=torch.channels_last)


def test_scattered_cells_lie_where_they_were_and_all_else_is_zero():
    x = feature_map()
    back = scatter_cells(gather_cells(x, KEEP, SHAPE), KEEP, SHAPE)
    visible = torch.zeros(2, 6, dtype=torch.bool).scatter(1, KEEP, True).view(2, 1, *SHAPE)
    visible = visible.repeat_interleave(3, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(back, x * visible)


def test_gradients_reach_the_cells_alone():
    x = feature_map().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gather_cells(x, KEEP, SHAPE).sin(), x)
    cells = gather_cells(feature_map(), KEEP, SHAPE).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda cells: scatter_cells(cells, KEEP, SHAPE).sin(), cells)


def test_cells_that_do_not_divide_the_map_are_refused():
    with pytest.raises(ValueError, match="6 x 6 positions can't be divided into 4 x 3 units"):
        gather_cells(feature_map(), KEEP, (4, 3))
