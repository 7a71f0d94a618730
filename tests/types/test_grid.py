"""Grids, and values on a coarse and a fine one."""

import pytest
import torch

from maskpre.types import Grid, refine, split_cells

COARSE = Grid((2, 3), (32, 32))
FINE = Grid((4, 6), (16, 16))


class TestGrid:
    def test_sizes(self):
        assert Grid.over((64, 96), (16, 16)) == FINE
        assert (FINE.num_cells, FINE.input_size) == (24, (64, 96))
        assert Grid((8, 14, 14), (2, 16, 16)).input_size == (16, 224, 224)

    def test_refinement_counts_cells_per_axis(self):
        assert COARSE.refinement(FINE) == (2, 2)
        assert COARSE.refinement(Grid((4, 3), (16, 32))) == (2, 1)
        assert COARSE.refinement(COARSE) == (1, 1)

    @pytest.mark.parametrize(
        "finer", [Grid((1, 1), (64, 96)), Grid((3, 4), (24, 24)), Grid((4, 4), (16, 16))]
    )
    def test_cells_that_do_not_nest_are_refused(self, finer):
        with pytest.raises(
            ValueError, match=r"grid \(2, 3\) of stride \(32, 32\) can't be divided into cells"
        ):
            COARSE.refinement(finer)

    def test_input_that_is_no_multiple_is_refused(self):
        with pytest.raises(
            ValueError, match=r"input size \(64, 90\) is not a multiple of the cell size \(16, 16\)"
        ):
            Grid.over((64, 90), (16, 16))


def test_refine_repeats_as_an_upscaled_picture():
    values = torch.arange(12).view(2, 6)
    picture = values.view(2, 2, 3).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert torch.equal(refine(values, COARSE, FINE), picture.flatten(1))


def test_split_cells_lists_sub_cells_in_raster_order():
    cells = split_cells(torch.arange(24)[None], FINE, COARSE)[0]
    assert cells.tolist()[0] == [0, 1, 6, 7]
    assert cells.tolist()[4] == [14, 15, 20, 21]


def test_split_cells_keeps_further_dimensions_and_undoes_refine():
    values = torch.rand(2, 6, 5)
    fine = torch.stack([refine(values[..., k], COARSE, FINE) for k in range(5)], dim=-1)
    split = split_cells(fine, FINE, COARSE)
    assert split.shape == (2, 6, 4, 5)
    assert torch.equal(split, values[:, :, None].expand(-1, -1, 4, -1))


def test_split_cells_in_three_dimensions():
    fine, coarse = Grid((4, 2, 2), (1, 8, 8)), Grid((2, 1, 2), (2, 16, 8))
    assert split_cells(torch.arange(16)[None], fine, coarse)[0].tolist() == [
        [0, 2, 4, 6],
        [1, 3, 5, 7],
        [8, 10, 12, 14],
        [9, 11, 13, 15],
    ]
