"""Decays against the published rules, step by step."""

import math

import pytest

from maskpre.teachers.decay import EpochRampDecay, RampDecay


def test_hpm_rises_for_a_hundred_epochs() -> None:
    decay = EpochRampDecay(epochs=200)
    for epoch in range(200):
        expected = 0.999 + epoch / 100 * (0.9999 - 0.999) if epoch < 100 else 0.9999
        for within in (0.0, 0.5, 0.99):
            assert decay((epoch + within) / 200) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("steps_per_epoch", "ranks"), [(1, 1), (10, 1), (10, 4), (313, 2)])
def test_the_epoch_decides_whatever_the_batch(steps_per_epoch: int, ranks: int) -> None:
    decay, per_epoch = EpochRampDecay(epochs=8), steps_per_epoch * ranks
    decays = [decay(step / (8 * per_epoch)) for step in range(8 * per_epoch)]
    assert decays == [0.999 + epoch / 100 * 0.0009 for epoch in range(8) for _ in range(per_epoch)]


def test_every_step_ramps() -> None:
    linear = RampDecay(start=0.996, end=1.0)
    cosine = RampDecay(start=0.996, end=1.0, shape="cosine")
    for step in range(50):
        assert linear(step / 50) == pytest.approx(0.996 + step * 0.004 / 50)
        published = 1 + (0.996 - 1) * (1 + math.cos(math.pi * step / 50)) / 2
        assert cosine(step / 50) == pytest.approx(published)


def test_impossible_decays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"end must be a decay between 0 and 1, got 1\.5"):
        RampDecay(end=1.5)
    with pytest.raises(ValueError, match="ramp_epochs must be at least 1, got 0"):
        EpochRampDecay(epochs=5, ramp_epochs=0)
