import pytest
import torch

from maskpre.ops.patchify import patch_view, patches_at, patchify, unpatchify
from maskpre.types import Grid

GRID = Grid.over((6, 8), (3, 2))


def test_patches_hold_row_column_channel():
    image = torch.arange(2 * 3 * 6 * 8.0).view(2, 3, 6, 8)
    patches = patchify(image, GRID)
    assert patches.shape == (2, 8, 18)
    for cell in range(8):
        row, col = divmod(cell, 4)
        for value in range(18):
            pixel, channel = divmod(value, 3)
            y, x = divmod(pixel, 2)
            expected = image[:, channel, 3 * row + y, 2 * col + x]
            assert torch.equal(patches[:, cell, value], expected)


def test_patches_of_some_cells():
    clip, grid = torch.randn(2, 3, 4, 6, 8), Grid.over((4, 6, 8), (2, 3, 2))
    ids = torch.tensor([[3, 0, 15], [7, 7, 1]])
    found, patches = patches_at(clip, grid, ids), patchify(clip, grid)
    assert torch.equal(found, torch.stack([patches[0, ids[0]], patches[1, ids[1]]]))
    assert torch.equal(patches_at(clip, grid, None), patches)


def test_unpatchify_is_the_inverse():
    image = torch.randn(2, 5, 6, 8)
    assert torch.equal(unpatchify(patchify(image, GRID), GRID), image)


def test_patch_view_copies_nothing():
    image = torch.randn(2, 3, 6, 8)
    view = patch_view(image, GRID)
    assert view.shape == (2, 2, 4, 3, 3, 2)
    assert view.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
    assert torch.equal(view[1, 1, 2], image[1, :, 3:6, 4:6])


def test_other_picture_sizes_are_refused():
    with pytest.raises(ValueError, match=r"picture of \(8, 6\) pixels, expected \(6, 8\)"):
        patchify(torch.zeros(1, 3, 8, 6), GRID)
