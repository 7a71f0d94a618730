"""Counts and ranking."""

import pytest
import torch

from maskpre.masking.base import check_ratio, count_visible, plan_from_scores
from maskpre.types import Grid

GRID = Grid((2, 3), (16, 16))


@pytest.mark.parametrize(
    ("num_cells", "ratio", "visible"), [(196, 0.75, 49), (196, 0.6, 78), (10, 0.9, 0), (100, 0.45, 55)]
)
def test_visible_cells_are_counted_in_double_precision(num_cells, ratio, visible):
    # 10 * (1 - 0.9) is 0.9999999999999998.
    assert count_visible(num_cells, ratio) == visible


def test_a_ratio_that_leaves_no_cell_names_the_counts():
    with pytest.raises(ValueError, match=r"mask ratio 0\.9 leaves 0 of 10 cells visible"):
        check_ratio(0.9, num_cells=10)
    with pytest.raises(ValueError, match=r"mask ratio must be between 0 and 1, got 1\.0"):
        check_ratio(1.0, num_cells=10)


def test_lowest_scores_stay_visible_in_ascending_order():
    scores = torch.tensor([[0.3, 0.1, 0.9, 0.2, 0.8, 0.7], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    plan = plan_from_scores(scores, num_visible=2, grid=GRID)
    assert plan.keep.tolist() == [[1, 3], [5, 4]]
    assert plan.hide.tolist() == [[0, 5, 4, 2], [3, 2, 1, 0]]
