import pytest
import torch

from maskpre.losses.pixel_l1 import PixelL1


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.randn(2, 3, 12, dtype=torch.float64), torch.randn(2, 3, 12, dtype=torch.float64)


def official(pair, weight, channels):
    """SimMIM's expression on the picture: (|x - y| * mask).sum() / (mask.sum() + 1e-5) / channels."""
    errors = (pair[0] - pair[1]).abs() * weight.expand(2, 3, 12)
    # A mask has one value per pixel; here every pixel's value comes once per channel.
    pixels = weight.expand(2, 3, 12)[..., ::channels].sum()
    return (errors.sum() / (pixels + 1e-5) / channels).item()


@pytest.mark.parametrize("channels", [1, 3])
def test_without_weights_every_pixel_counts(pair, channels):
    found = PixelL1(in_chans=channels)(*pair, None)
    assert found.value.item() == pytest.approx(
        official(pair, torch.ones(2, 3, 1, dtype=torch.float64), channels), rel=1e-12
    )
    torch.testing.assert_close(found.per_token, (pair[0] - pair[1]).abs().mean(dim=2))


def test_weight_per_token(pair):
    weight = torch.tensor([[1.0, 0, 1], [0, 0, 1]], dtype=torch.float64)[..., None]
    found = PixelL1(in_chans=3)(*pair, weight).value.item()
    assert found == pytest.approx(official(pair, weight, 3), rel=1e-12)


def test_weight_per_pixel(pair):
    weight = (torch.rand(2, 3, 4, dtype=torch.float64) > 0.5).double().repeat_interleave(3, dim=2)
    found = PixelL1(in_chans=3)(*pair, weight).value.item()
    assert found == pytest.approx(official(pair, weight, 3), rel=1e-12)


def test_an_empty_region_costs_nothing(pair):
    assert PixelL1(in_chans=3)(*pair, torch.zeros(2, 3, 1, dtype=torch.float64)).value.item() == 0.0
