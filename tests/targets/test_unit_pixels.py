import pytest
import torch

from maskpre.ops.patchify import patchify, unpatchify
from maskpre.targets.unit_pixels import UnitPixelTarget
from maskpre.types import Grid, Step

GRID = Grid((2, 3, 2), (2, 4, 5))
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]


def clip():
    """Pixels in [0, 1]."""
    return torch.rand(2, 3, 4, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def values(pixels, **options):
    mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None, None] for each in (MEAN, STD))
    step = Step(batch={}, views={"video": (pixels - mean) / std}, noise=None, progress=0.0)
    return UnitPixelTarget(grid=GRID, in_chans=3, mean=MEAN, std=STD, **options)(step).tokens


def test_tubelets_hold_frame_row_column_channel():
    tokens = patchify(clip(), GRID)
    assert tokens.shape == (2, 12, 120)
    for cell, value in ((0, 0), (7, 100), (11, 119)):
        t, h, w = cell // 6, cell // 2 % 3, cell % 2
        f, y, x, c = value // 60, value // 15 % 4, value // 3 % 5, value % 3
        assert torch.equal(tokens[:, cell, value], clip()[:, c, 2 * t + f, 4 * h + y, 5 * w + x])
    assert torch.equal(unpatchify(tokens, GRID), clip())


def test_plain_values_are_the_pixels():
    torch.testing.assert_close(values(clip(), normalize="none"), patchify(clip(), GRID))


def test_channels_of_a_tubelet_are_standardised_by_themselves():
    found = values(clip()).unflatten(2, (40, 3))
    pixels = patchify(clip(), GRID).unflatten(2, (40, 3))
    for cell, channel in ((0, 0), (5, 2)):
        one = pixels[1, cell, :, channel]
        deviation = ((one - one.mean()) ** 2).sum().div(39).sqrt()
        torch.testing.assert_close(found[1, cell, :, channel], (one - one.mean()) / (deviation + 1e-6))


def test_a_flat_tubelet_is_zero():
    flat = torch.full((1, 3, 4, 12, 10), 0.25, dtype=torch.float64)
    assert values(flat).abs().max() < 1e-8


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mean": [0.5]}, "mean has 1 and std 3 values for 3 channels"),
        ({"normalize": "patch"}, "normalize must be 'none' or 'channel', got 'patch'"),
    ],
)
def test_wrong_options_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        UnitPixelTarget(**{"grid": GRID, "in_chans": 3, "mean": MEAN, "std": STD, **options})
