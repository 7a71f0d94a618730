import pytest
import torch
from torch import nn

from maskpre.ops.tiles.pool import tile_pool2d

POOLS = [
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, 2),
    nn.MaxPool2d(3, 1, 1),
    nn.MaxPool2d(5, 1, 2),
    nn.MaxPool2d(4, 2, 1),
    nn.MaxPool2d(3, 2, 0, ceil_mode=True),
    nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d(3, 2, 1),
]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
@pytest.mark.parametrize("ties", [False, True])
def test_values_and_gradients_are_those_of_pooling_everything(layout, gradients, pool, ties):
    units = layout.units
    if any(size % pool.stride for size in layout.tile):
        with pytest.raises(ValueError, match="makes no tiles of tiles"):
            tile_pool2d(units.pack(layout.whole_map()), pool, units)
        return
    # Behind a ReLU most windows hold several zeros: the gradient must go to the same one of them.
    x = layout.whole_map()
    x = (x.relu() if ties else x).requires_grad_()
    plain = pool(x) * layout.visible((pool.stride, pool.stride))
    ours = units.unpack(tile_pool2d(units.pack(x), pool, units))
    torch.testing.assert_close(ours, plain, rtol=1e-13, atol=1e-13)
    (expected,), (given,) = gradients(plain, [x]), gradients(ours, [x])
    torch.testing.assert_close(given, expected * layout.visible(), rtol=1e-13, atol=1e-13)
