"""Surface patterns: which of a body's two tones a point of the unrolled surface shows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32

PatternName = Literal["solid", "stripes", "checker", "dots"]
Coordinates: TypeAlias = Float32[np.ndarray, "2 n"]
Choice: TypeAlias = Bool[np.ndarray, "n"]


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A named pattern, the width of one of its cells in units of length, and its shift in cells."""

    name: PatternName
    cell: float
    phase: tuple[float, float]

    def second_tone(self, coordinates: Coordinates) -> Choice:
        """True where the second tone shows, False where the first does."""
        cells = coordinates / np.float32(self.cell) + np.array(self.phase, np.float32)[:, None]
        return PATTERNS[self.name](cells)


def _odd(numbers: Float32[np.ndarray, "n"]) -> Choice:
    return (numbers.astype(np.int32) & 1).astype(bool)


def _solid(cells: Coordinates) -> Choice:
    return np.zeros(cells.shape[1], bool)


def _stripes(cells: Coordinates) -> Choice:
    return _odd(np.floor(cells[1]))


def _checker(cells: Coordinates) -> Choice:
    return _odd(np.floor(cells[0]) + np.floor(cells[1]))


def _dots(cells: Coordinates) -> Choice:
    """One disc of diameter 1.3 in the middle of every 2 x 2 cells: a third of the area."""
    across = cells / 2
    from_centre = across - np.floor(across) - np.float32(0.5)
    return (from_centre * from_centre).sum(axis=0) < 0.325**2


PATTERNS: dict[PatternName, Callable[[Coordinates], Choice]] = {
    "solid": _solid,
    "stripes": _stripes,
    "checker": _checker,
    "dots": _dots,
}
"""In label order."""
