import pytest
import torch

from maskpre.ops.patchify import patchify
from maskpre.targets.pixels import PixelTarget
from maskpre.types import Grid, Step

GRID = Grid.over((6, 8), (3, 2))


def values(image, **options):
    step = Step(batch={}, views={"image": image}, noise=None, progress=0.0)
    found = PixelTarget(grid=GRID, in_chans=3, **options)(step)
    assert (found.grid, found.ids) == (GRID, None)
    return found.tokens


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 8, dtype=torch.float64)


def test_plain_pixels(image):
    assert torch.equal(values(image), patchify(image, GRID))


def test_patches_are_standardised_over_all_their_values(image):
    found = values(image, normalize="patch")
    for sample, cell in ((0, 0), (1, 5)):
        pixels = patchify(image, GRID)[sample, cell]
        # Unbiased: divided by the count less one.
        deviation = ((pixels - pixels.mean()) ** 2).sum() / 17
        torch.testing.assert_close(found[sample, cell], (pixels - pixels.mean()) / (deviation + 1e-6).sqrt())


def test_a_flat_patch_is_zero():
    assert values(torch.ones(1, 3, 6, 8), normalize="patch").abs().max() == 0.0


@pytest.mark.parametrize("window", [3, 5])
def test_window_takes_the_pixels_inside_the_picture(image, window):
    found = values(image, normalize="window", window=window)
    reach, expected = window // 2, torch.empty_like(image)
    for y in range(6):
        for x in range(8):
            around = image[
                :, :, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1
            ].flatten(2)
            spread = (around.var(dim=2) + 1e-6).sqrt()
            expected[:, :, y, x] = (image[:, :, y, x] - around.mean(dim=2)) / spread
    torch.testing.assert_close(found, patchify(expected, GRID), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("window", [1, 4])
def test_even_and_tiny_windows_are_refused(window):
    with pytest.raises(ValueError, match=f"window must be odd and at least 3 pixels, got {window}"):
        PixelTarget(grid=GRID, in_chans=3, normalize="window", window=window)


@pytest.mark.parametrize("normalize", ["none", "patch", "window"])
def test_dim_is_the_number_of_values(image, normalize):
    target = PixelTarget(grid=GRID, in_chans=3, normalize=normalize, window=3)
    assert target.dim == 18 == values(image, normalize=normalize, window=3).shape[2]
