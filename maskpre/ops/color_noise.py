"""Noise with a chosen spectrum, named after the colours of light."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from maskpre.errors import UserError
from maskpre.ops.noise import KeyedNoise

Color = Literal["white", "red", "blue", "green", "purple"]


@dataclass(frozen=True)
class Spectrum:
    """A filter made of Gaussians of widths `sigmas` in samples, and how often it is applied.

    One width passes frequencies below it, two (narrow, wide) the band between them; `complement` passes the
    rest instead.
    """

    sigmas: tuple[float, ...]
    iterations: int
    complement: bool = False

    def response(self, size: int) -> Float[Tensor, "n f"]:
        """Gain at every frequency of torch.fft.rfft2 of a periodic picture of `size` x `size` samples.

        A Gaussian's continuous transform exp(-2 pi^2 sigma^2 f^2), f in cycles per sample.
        """
        rows = torch.fft.fftfreq(size, dtype=torch.float64)[:, None]
        columns = torch.fft.rfftfreq(size, dtype=torch.float64)[None]
        exponent = -2 * math.pi**2 * (rows**2 + columns**2)
        narrow, *wide = (torch.exp(exponent * sigma**2) for sigma in self.sigmas)
        passed = narrow - wide[0] if wide else narrow
        return 1 - passed if self.complement else passed


SPECTRA: Final[Mapping[Color, Spectrum]] = MappingProxyType(
    {
        "white": Spectrum(sigmas=(), iterations=0),
        "red": Spectrum(sigmas=(2.0,), iterations=5),
        "blue": Spectrum(sigmas=(0.5,), iterations=5, complement=True),
        "green": Spectrum(sigmas=(0.5, 2.0), iterations=10),
        "purple": Spectrum(sigmas=(0.5, 1.75), iterations=10, complement=True),
    }
)
"""Widths and iterations whose spectra come closest to the ones ColorMAE prints (it publishes no values)."""


def choose_spectrum(
    color: Color, *, sigmas: Sequence[float] | None = None, iterations: int | None = None
) -> Spectrum:
    """The colour's spectrum, with other widths or iterations where given.

    Raises UserError for an unknown colour, the wrong number of widths, widths that are not positive and
    ascending, or fewer than one iteration (white takes neither).
    """
    if color not in SPECTRA:
        raise UserError(f"noise colour {color!r} is unknown; choose from {list(SPECTRA)}")
    usual = SPECTRA[color]
    widths = usual.sigmas if sigmas is None else tuple(float(sigma) for sigma in sigmas)
    if len(widths) != len(usual.sigmas):
        raise UserError(f"{color} noise takes {len(usual.sigmas)} sigmas, got {len(widths)}: {list(widths)}")
    if any(wide <= narrow for narrow, wide in zip((0.0, *widths), widths, strict=False)):
        raise UserError(f"sigmas must be positive and ascending, got {list(widths)}")
    rounds = usual.iterations if iterations is None else iterations
    if (rounds < 1) if widths else (rounds != 0):
        raise UserError(f"{color} noise takes {'1 or more' if widths else '0'} iterations, got {rounds}")
    return Spectrum(sigmas=widths, iterations=rounds, complement=usual.complement)


def equalize(images: Float[Tensor, "s n n"]) -> Float[Tensor, "s n n"]:
    """Replace every sample by its rank within its picture, spread evenly over (0, 1)."""
    flat = images.flatten(1)
    levels = (torch.arange(flat.shape[1], device=flat.device, dtype=flat.dtype) + 0.5) / flat.shape[1]
    ranked = torch.empty_like(flat).scatter_(1, flat.argsort(dim=1), levels.expand_as(flat))
    return ranked.view_as(images)


def color_noise(spectrum: Spectrum, *, num: int, size: int, seed: int) -> Float[Tensor, "s n n"]:
    """`num` periodic float32 pictures of `size` x `size` samples, uniform in [0, 1), a function of `seed`.

    Filtering (ColorMAE, Hinojosa et al. 2024, section 3) and equalising alternate: one filtering alone does
    not give the spectra that ColorMAE prints. Float64 keeps rounding, which differs between machines and
    devices, from swapping ranks. Computed on torch's default device; the cost grows with num * size**2 *
    iterations: about 1 s on one CPU core for 256 green pictures of 64 x 64.
    """
    if num < 1 or size < 2:
        raise UserError(
            f"a noise bank needs at least 1 picture of 2 x 2 samples, got {num} of {size} x {size}"
        )
    picture = torch.arange(num)
    white = KeyedNoise(seed, epoch=torch.zeros_like(picture), index=picture).uniform("color_noise", size**2)
    images = white.double().view(num, size, size)
    if spectrum.iterations:
        response = spectrum.response(size)
    for _ in range(spectrum.iterations):
        images = equalize(torch.fft.irfft2(torch.fft.rfft2(images) * response, s=(size, size)))
    return images.float()
