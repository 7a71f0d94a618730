import pytest
import torch

from maskpre.losses.mse import MeanSquaredError
from maskpre.objectives import region_weight
from maskpre.types import Grid, Located, MaskPlan

GRID = Grid((40, 40), (1, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_many_cells_are_counted_in_half_precision(dtype):
    order = torch.rand(2, GRID.num_cells, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    plan = MaskPlan.from_order(order, num_visible=299, grid=GRID)
    prediction = Located(torch.ones(2, GRID.num_cells, 3, dtype=dtype), GRID)
    weight = region_weight(plan, "masked", prediction)
    assert weight.sum() == 2 * 1301
    loss = MeanSquaredError()(prediction.tokens, torch.zeros_like(prediction.tokens), weight)
    assert loss.value == 1
