"""Convolving filled maps against filling maps and convolving them."""

import pytest
import torch
from torch import nn

from maskpre.ops.tiles.filled import filled_conv2d
from maskpre.ops.tiles.units import VisibleUnits

KEEP = torch.tensor([[4, 0], [3, 5]])
SHAPE = (2, 3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("tile", [(1, 1), (2, 2), (4, 3)])
def test_values_and_gradients(tile, side, bias):
    torch.manual_seed(0)
    units = VisibleUnits(keep=KEEP, shape=SHAPE)
    layer = nn.Conv2d(5, 4, side, padding=side // 2, bias=bias).double()
    tall = torch.randn(2, 5, 2 * tile[0], tile[1], dtype=torch.float64, requires_grad=True)
    fill = torch.randn(5, dtype=torch.float64, requires_grad=True)
    kept = units.unpack(torch.ones_like(tall)) > 0
    expected = layer(torch.where(kept, units.unpack(tall), fill.view(1, -1, 1, 1)))
    found = filled_conv2d(tall, fill, layer, units)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)
    scale = torch.randn_like(expected)
    inputs = [tall, fill, *layer.parameters()]
    ours, theirs = (torch.autograd.grad((out * scale).sum(), inputs) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
