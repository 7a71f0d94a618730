import pytest
import torch

from maskpre.ops.tiles.units import VisibleUnits


def test_a_tall_map_holds_the_visible_tiles_one_below_the_other(layout):
    units, (height, width) = layout.units, layout.tile
    num_visible = units.keep.shape[1]
    x = layout.whole_map()
    tall = units.pack(x)
    assert tall.shape == (3, 6, num_visible * height, width)
    assert units.tile(tall) == (height, width)
    for sample, number in ((0, 0), (2, num_visible - 1)):
        line, column = divmod(int(units.keep[sample, number]), units.shape[1])
        place = x[sample, :, line * height :, column * width :][:, :height, :width]
        assert torch.equal(tall[sample, :, number * height :][:, :height], place)
    assert torch.equal(units.unpack(tall), x)


def test_unpacking_leaves_zeros_in_hidden_places(layout):
    ones = torch.ones_like(layout.units.pack(layout.visible()))
    assert torch.equal(layout.units.unpack(ones), layout.visible())


def test_a_map_that_units_do_not_divide_is_refused():
    units = VisibleUnits(keep=torch.tensor([[0]]), shape=(2, 2))
    with pytest.raises(ValueError, match="4 x 5 positions can't be divided into 2 x 2 units"):
        units.pack(torch.zeros(1, 1, 4, 5))


def test_what_lies_around_a_tile_is_hidden_or_outside():
    units = VisibleUnits(keep=torch.tensor([[0, 1]]), shape=(2, 2))
    around = units.around((1, 2), range(-1, 2), range(-1, 3))
    assert around.tolist() == [
        [[5, 5, 5, 5], [5, 0, 1, 2], [5, 4, 4, 4]],
        [[5, 5, 5, 5], [1, 2, 3, 5], [4, 4, 4, 5]],
    ]
    assert units.halo((1, 2), range(-1, 2), range(-1, 3)).max() == 4
