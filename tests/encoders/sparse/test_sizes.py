"""Sizes of feature maps, known without computing them, and networks whose maps fit no cells."""

import re

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn
from torch.nn.functional import pad

from maskpre.encoders.sparse.program import trace
from maskpre.encoders.sparse.sizes import Size, Sizes, check_sizes, paddings
from maskpre.types import Grid

GRID = Grid.over((64, 64), (16, 16))
LAYERS = {
    "strided": nn.Conv2d(1, 1, 7, 2, 3),
    "dilated": nn.Conv2d(1, 1, 3, 1, 4, dilation=4),
    "same": nn.Conv2d(1, 1, 4, padding="same", dilation=2),
    "as the map demands": Conv2dSame(1, 1, 5, 2),
    "max pool": nn.MaxPool2d(3, 2, 1),
    "max pool as the map demands": MaxPool2dSame(3, 2),
    "average": nn.AvgPool2d(2, 2, ceil_mode=True),
    "average as the map demands": AvgPool2dSame(2, 2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("in_tiles", [False, True])
def test_outputs_are_counted_as_the_layer_makes_them(name: str, in_tiles: bool) -> None:
    layer = LAYERS[name]
    expected = tuple(layer(torch.zeros(1, 1, 64, 64)).shape[2:])
    if name == "same":
        in_tiles = False
    assert Sizes(GRID, in_tiles=in_tiles).window(layer, Size((64, 64))).shape == expected


@pytest.mark.parametrize("name", ["strided", "dilated", "same", "as the map demands"])
def test_paddings_are_those_of_the_layer(name: str) -> None:
    layer, x = LAYERS[name], torch.randn(1, 1, 11, 12)
    framed = pad(x, paddings(layer, (11, 12)))
    by_hand = nn.functional.conv2d(framed, layer.weight, layer.bias, layer.stride, 0, layer.dilation)
    torch.testing.assert_close(by_hand, layer(x))


class Net(nn.Module):
    """A stem and one more layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.late = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.late(self.stem(x))


UNFIT = {
    "no padding": (nn.Conv2d(4, 4, 3), "layer 'late': makes a map of 14 x 14 of one of 16 x 16, in which"),
    "too much stride": (nn.MaxPool2d(8, 8), "layer 'late': makes a map of 2 x 2 of one of 16 x 16, in which"),
    "nothing left": (nn.Conv2d(4, 4, 17), "layer 'late': makes a map of 0 x 0 of one of 16 x 16"),
}


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("in_tiles", [False, True])
def test_a_map_that_fits_no_cells_is_refused_with_its_layer(name: str, in_tiles: bool) -> None:
    layer, message = UNFIT[name]
    net = Net(layer)
    program = trace(net, stages=["stem", "late"], method="forward")
    with pytest.raises(ValueError, match=re.escape(message)):
        check_sizes(program, net, GRID, in_tiles=[in_tiles] * 3)


def test_a_map_that_fits_but_makes_no_tiles_is_refused_on_tiles_alone() -> None:
    net = Net(nn.Conv2d(4, 4, 4, padding="same"))
    program = trace(net, stages=["stem", "late"], method="forward")
    check_sizes(program, net, GRID, in_tiles=[True, True, False])
    with pytest.raises(ValueError, match=r"layer 'late': .*makes no tiles of tiles of 4 x 4 positions"):
        check_sizes(program, net, GRID, in_tiles=[True, True, True])


@pytest.mark.parametrize("name", ["resnet50d", "convnextv2_atto", "regnety_002", "densenet121"])
def test_whole_networks_are_followed_to_their_last_map(name: str) -> None:
    net = timm.create_model(name, num_classes=0, global_pool="")
    last = net.feature_info[-1]
    program = trace(net, stages=[info["module"] for info in net.feature_info])
    sizes = Sizes(Grid.over((64, 64), (32, 32)), in_tiles=False)
    assert (last["reduction"], sizes.in_tiles) == (32, False)
    if name != "regnety_002":
        check_sizes(program, net, sizes.grid, in_tiles=[False] * program.num_stages)
    else:
        with pytest.raises(ValueError, match="averages over the whole picture"):
            program.check(Sizes.knows)
