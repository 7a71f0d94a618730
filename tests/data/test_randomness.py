import numpy as np
import pytest

from maskpre.data.randomness import Draws, raw_bits


def test_same_words_whatever_was_drawn_before():
    words = raw_bits(seed=3, stream="crop", epoch=1, index=7, count=5)
    raw_bits(seed=3, stream="crop", epoch=2, index=9, count=100)
    assert (raw_bits(seed=3, stream="crop", epoch=1, index=7, count=5) == words).all()


def test_words_never_change():
    """Checkpoints rely on them: a resume with a newer numpy must see the same crops."""
    words = raw_bits(seed=3, stream="crop", epoch=1, index=7, attempt=2, count=2)
    assert words.tolist() == [0x16143D5B4FAA7D5D, 0x0B0A57293D8C8D1E]


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"stream": "flip"}, {"epoch": 2}, {"index": 8}, {"attempt": 1}]
)
def test_every_part_of_the_key_matters(change):
    base = {"seed": 3, "stream": "crop", "epoch": 1, "index": 7, "attempt": 0, "count": 4}
    assert not set(raw_bits(**base).tolist()) & set(raw_bits(**(base | change)).tolist())


def test_uniform_numbers_fill_the_unit_interval():
    draws = np.concatenate([Draws(0, 0, index).uniform("crop", 4) for index in range(2000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.histogram(draws, bins=10, range=(0, 1))[0] == pytest.approx([800] * 10, rel=0.12)
