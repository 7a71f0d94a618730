from typing import get_args

import numpy as np
import pytest

from maskpre.data.scenes.patterns import PATTERNS, Pattern, PatternName


def _grid(size: float = 8, step: float = 0.01) -> np.ndarray:
    line = np.arange(-size / 2, size / 2, step, dtype=np.float32) + np.float32(step / 2)
    return np.stack(np.meshgrid(line, line)).reshape(2, -1)


@pytest.mark.parametrize(
    ("name", "share"), [("solid", 0), ("stripes", 0.5), ("checker", 0.5), ("dots", np.pi * 0.325**2)]
)
def test_share_of_the_second_tone(name: PatternName, share: float) -> None:
    pattern = Pattern(name=name, cell=1.0, phase=(0.3, 0.7))
    assert pattern.second_tone(_grid()).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("name", ["stripes", "checker", "dots"])
def test_pattern_repeats_every_two_cells_only(name: PatternName) -> None:
    pattern = Pattern(name=name, cell=0.5, phase=(0.0, 0.0))
    grid = _grid(4)
    across = np.array([[0], [1]], np.float32)
    assert (pattern.second_tone(grid) == pattern.second_tone(grid + across)).mean() > 0.99
    assert (pattern.second_tone(grid) == pattern.second_tone(grid + across / 2)).mean() < 0.6


def test_every_named_pattern_is_drawn() -> None:
    assert tuple(PATTERNS) == get_args(PatternName)
