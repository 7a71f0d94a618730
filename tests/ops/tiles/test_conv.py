import pytest
import torch
from torch import nn

from maskpre.ops.tiles import conv
from maskpre.ops.tiles.conv import tile_conv2d, tile_linear
from maskpre.ops.tiles.units import VisibleUnits

# kernel, stride, padding, dilation, groups
SHAPES = [
    (1, 1, 0, 1, 1),
    (1, 2, 0, 1, 1),
    (3, 1, 1, 1, 1),
    (3, 2, 1, 1, 1),
    (7, 2, 3, 1, 1),
    (7, 1, 3, 1, 6),
    (5, 1, 2, 1, 2),
    (2, 2, 0, 1, 1),
    (4, 4, 0, 1, 1),
    (3, 1, 2, 2, 1),
    (3, 2, 2, 2, 1),
    (4, 2, 1, 1, 1),
    (5, 4, 1, 1, 1),
    (3, 1, "same", 1, 3),
    ((1, 3), (1, 2), (0, 1), 1, 1),
]


def build(shape, bias=True):
    kernel, stride, padding, dilation, groups = shape
    return nn.Conv2d(6, 12, kernel, stride, padding, dilation, groups, bias=bias).double()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("halo_from", [0, 10**9])
def test_values_and_gradients_are_those_of_convolving_everything(
    monkeypatch, layout, gradients, shape, halo_from
):
    monkeypatch.setattr(conv, "HALO_FROM", halo_from)
    units, tile = layout.units, layout.tile
    layer = build(shape, bias=sum(tile) % 2 == 0)
    x = layout.whole_map().requires_grad_()
    if any(size % step for size, step in zip(tile, layer.stride, strict=True)):
        with pytest.raises(ValueError, match="makes no tiles of tiles"):
            tile_conv2d(units.pack(x), layer, units)
        return
    plain = layer(x) * layout.visible(layer.stride)
    ours = units.unpack(tile_conv2d(units.pack(x), layer, units))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    inputs = [x, *layer.parameters()]
    of_x, *of_weights = gradients(plain, inputs)
    # What lies in hidden places has no gradient on our side.
    expected = [of_x * layout.visible(), *of_weights]
    for ours_grad, plain_grad in zip(gradients(ours, inputs), expected, strict=True):
        torch.testing.assert_close(ours_grad, plain_grad, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(("tile", "expected"), [((8, 8), "halo"), ((4, 4), "halo"), ((2, 2), "columns")])
def test_large_tiles_are_convolved_and_small_ones_multiplied(tile, expected):
    assert conv.way(nn.Conv2d(4, 4, 3, 1, 1), tile) == expected


def test_a_kernel_that_stays_in_its_tile_runs_as_it_is():
    assert conv.way(nn.Conv2d(4, 4, 2, 2), (8, 8)) == "inside"


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 1, padding=1)])
def test_padding_that_shifts_outputs_is_refused(layer):
    units = VisibleUnits(keep=torch.tensor([[0, 3], [1, 0], [2, 1]]), shape=(2, 2))
    with pytest.raises(ValueError, match="makes no tiles of tiles of 4 x 4 positions"):
        tile_conv2d(torch.zeros(3, 6, 8, 4), layer, units)


def test_only_what_needs_a_gradient_gets_one():
    units = VisibleUnits(keep=torch.tensor([[0, 3], [1, 0], [2, 1]]), shape=(2, 2))
    for tile in ((8, 8), (1, 1)):
        layer = nn.Conv2d(6, 6, 3, 1, 1).requires_grad_(False)
        x = torch.randn(3, 6, 2 * tile[0], tile[1], requires_grad=True)
        tile_conv2d(x, layer, units).sum().backward()
        assert x.grad is not None
        layer.requires_grad_(True)
        tile_conv2d(x.detach(), layer, units).sum().backward()
        assert layer.weight.grad is not None


def test_autocast_lowers_the_precision():
    units = VisibleUnits(keep=torch.tensor([[0, 3], [1, 0], [2, 1]]), shape=(2, 2))
    for tile in ((8, 8), (1, 1)):
        layer = nn.Conv2d(6, 6, 3, 1, 1)
        x = torch.randn(3, 6, 2 * tile[0], tile[1])
        with torch.autocast("cpu", torch.bfloat16):
            out = tile_conv2d(x, layer, units)
        assert out.dtype is torch.bfloat16
        torch.testing.assert_close(out.float(), tile_conv2d(x, layer, units), rtol=0.05, atol=0.05)
        out.sum().backward()
        assert layer.weight.grad.dtype is torch.float32


def test_linear_is_the_layer(gradients):
    layer = nn.Linear(5, 7).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    torch.testing.assert_close(tile_linear(x, layer), layer(x))
    for ours, plain in zip(
        gradients(tile_linear(x, layer), inputs), gradients(layer(x), inputs), strict=True
    ):
        torch.testing.assert_close(ours, plain)
