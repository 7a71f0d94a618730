"""Two convolutions as one, against one after the other."""

import pytest
import torch
from torch import nn

from maskpre.ops import upsample as module
from maskpre.ops.upsample import upsample


def layers(bias=True):
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1, bias=bias)
    return up.double(), nn.Conv2d(5, 4, 3, padding=1, bias=False).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 1), (4, 6)])
def test_values_and_gradients(monkeypatch, size, bias):
    monkeypatch.setattr(module, "COMPOSE_FROM", 0)
    up, conv = layers(bias)
    x = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    found, expected = upsample(x, up, conv), conv(up(x))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)
    scale = torch.randn_like(expected)
    inputs = [x, *up.parameters(), *conv.parameters()]
    ours, theirs = (torch.autograd.grad((out * scale).sum(), inputs) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("side", "calls"), [(7, 1), (8, 0)])
def test_only_large_maps_are_worth_composing_the_weights(side, calls):
    """Of 3 channels, those of at least 120 positions: 2 x 8 x 8."""
    up, conv = layers()
    seen = []
    conv.register_forward_hook(lambda *_: seen.append("ran"))
    upsample(torch.randn(2, 3, side, side, dtype=torch.float64), up, conv)
    assert len(seen) == calls
