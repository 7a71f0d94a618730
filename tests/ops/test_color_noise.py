"""Generated colour noise against the spectra that ColorMAE prints."""

import pytest
import torch

from maskpre.errors import UserError
from maskpre.ops.color_noise import SPECTRA, choose_spectrum, color_noise, equalize

# Amplitude by frequency (cycles per sample), read off ColorMAE's figure; its colour scale ends at 1.
MEASURED = {
    "red": {0.05: 0.97, 0.07: 0.69, 0.09: 0.21, 0.11: 0.07, 0.13: 0.02},
    "blue": {
        0.25: 0.01, 0.35: 0.04, 0.41: 0.10, 0.45: 0.18, 0.49: 0.26,
        0.55: 0.37, 0.59: 0.48, 0.63: 0.65, 0.69: 0.73,
    },
    "green": {
        0.11: 0.08, 0.13: 0.22, 0.15: 0.49, 0.17: 0.81, 0.19: 0.88, 0.21: 0.85,
        0.23: 0.74, 0.25: 0.44, 0.27: 0.31, 0.31: 0.13, 0.35: 0.06,
    },
    "purple": {
        0.03: 0.98, 0.05: 0.76, 0.07: 0.20, 0.09: 0.08, 0.11: 0.04, 0.15: 0.02, 0.24: 0.02,
        0.33: 0.02, 0.45: 0.06, 0.51: 0.14, 0.55: 0.27, 0.61: 0.53, 0.67: 0.80,
    },
}  # fmt: skip
MOST_RMS = 0.035


def make(color, *, num=4, size=64, seed=0):
    return color_noise(choose_spectrum(color), num=num, size=size, seed=seed)


def amplitudes(images, frequencies):
    """Mean |FFT| / size of pictures on rings around the frequencies; white uniform noise gives 0.256."""
    size = images.shape[1]
    spectrum = (
        torch.fft.fft2(images.double() - images.double().mean((1, 2), keepdim=True)).abs().mean(0) / size
    )
    axis = torch.fft.fftfreq(size, dtype=torch.float64)
    radius = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    return torch.stack([spectrum[(radius - frequency).abs() <= 0.008].mean() for frequency in frequencies])


def distance(images, color):
    """Rms difference to the printed spectrum after one scale chosen for the whole spectrum."""
    made = amplitudes(images, MEASURED[color])
    printed = torch.tensor(list(MEASURED[color].values()), dtype=torch.float64)
    scales = torch.arange(0.8, 1.3, 0.01, dtype=torch.float64)[:, None]
    return ((made / scales).clamp(max=1) - printed).square().mean(dim=1).sqrt().min()


@pytest.mark.parametrize("color", MEASURED)
def test_spectrum_matches_the_printed_one_up_to_one_scale(color):
    assert distance(make(color, size=256), color) < MOST_RMS


@pytest.mark.parametrize("color", MEASURED)
def test_filtering_once_does_not_give_the_printed_spectrum(color):
    once = color_noise(choose_spectrum(color, iterations=1), num=4, size=256, seed=0)
    assert distance(once, color) > 2 * MOST_RMS


def test_white_noise_is_flat():
    level = amplitudes(make("white", size=256), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert torch.allclose(level, torch.full_like(level, (torch.pi / 48) ** 0.5), rtol=0.05)


@pytest.mark.parametrize("color", SPECTRA)
def test_values_are_uniform_in_every_picture(color):
    images = make(color)
    assert images.shape == (4, 64, 64)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() < 1
    quantiles = images.flatten(1).quantile(torch.tensor([0.25, 0.5, 0.75]), dim=1)
    assert torch.allclose(quantiles, torch.tensor([[0.25], [0.5], [0.75]]).expand(3, 4), atol=0.03)


def test_a_bank_is_a_function_of_its_seed_and_grows_at_its_end():
    bank = make("green")
    assert torch.equal(bank, make("green"))
    assert torch.equal(bank, make("green", num=6)[:4])
    assert not torch.equal(bank, make("green", seed=1))
    assert not torch.equal(bank[0], bank[1])


def test_the_callers_random_state_has_no_part_in_it():
    torch.manual_seed(1)
    bank, state = make("red"), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(bank, make("red"))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_rounding_of_another_device_swaps_no_ranks(monkeypatch):
    bank = make("green")
    inverse = torch.fft.irfft2
    generator = torch.Generator().manual_seed(0)

    def rounded_otherwise(*args, **options):
        values = inverse(*args, **options)
        return values + 1e-15 * values.std() * torch.randn(
            values.shape, generator=generator, dtype=values.dtype
        )

    monkeypatch.setattr(torch.fft, "irfft2", rounded_otherwise)
    assert torch.equal(bank, make("green"))


def test_pictures_are_periodic():
    images = make("red", num=16)
    inside = (images[:, 1:] - images[:, :-1]).abs().mean()
    across = (images[:, 0] - images[:, -1]).abs().mean()
    assert torch.isclose(inside, across, rtol=0.2)


def test_equalize_ranks_each_picture():
    images = torch.tensor([[[3.0, -1.0], [7.0, 0.0]], [[0.0, 1.0], [2.0, 3.0]]])
    expected = torch.tensor([[[0.625, 0.125], [0.875, 0.375]], [[0.125, 0.375], [0.625, 0.875]]])
    assert torch.equal(equalize(images), expected)


def test_given_widths_and_iterations_replace_the_colours_own():
    spectrum = choose_spectrum("green", sigmas=[1.0, 3.0], iterations=2)
    assert (spectrum.sigmas, spectrum.iterations, spectrum.complement) == ((1.0, 3.0), 2, False)
    # Wider Gaussians pass lower frequencies.
    low, high = amplitudes(color_noise(spectrum, num=4, size=64, seed=0), [0.1, 0.2])
    usual_low, usual_high = amplitudes(make("green"), [0.1, 0.2])
    assert low / high > 2 * usual_low / usual_high


@pytest.mark.parametrize(
    ("color", "options", "message"),
    [
        (
            "pink",
            {},
            "noise colour 'pink' is unknown; choose from .*'white', 'red', 'blue', 'green', 'purple'",
        ),
        ("green", {"sigmas": [0.5]}, r"green noise takes 2 sigmas, got 1: \[0.5\]"),
        ("white", {"sigmas": [0.5]}, "white noise takes 0 sigmas, got 1"),
        ("green", {"sigmas": [2.0, 0.5]}, r"sigmas must be positive and ascending, got \[2.0, 0.5\]"),
        ("red", {"sigmas": [0.0]}, r"sigmas must be positive and ascending, got \[0.0\]"),
        ("red", {"iterations": 0}, "red noise takes 1 or more iterations, got 0"),
        ("white", {"iterations": 3}, "white noise takes 0 iterations, got 3"),
    ],
)
def test_refuses_filters_that_make_no_sense(color, options, message):
    with pytest.raises(UserError, match=message):
        choose_spectrum(color, **options)


def test_refuses_an_empty_bank():
    with pytest.raises(UserError, match="at least 1 picture of 2 x 2 samples, got 0 of 64 x 64"):
        make("green", num=0)
