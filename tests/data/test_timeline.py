import numpy as np

from maskpre.data.timeline import Timeline


def test_a_steady_rate_forgives_single_gaps():
    steady = np.arange(100) * 512
    assert Timeline(steady, steady == 0).is_steady
    rounded = (np.arange(100) * 1000 / 29.97).astype(np.int64)
    assert Timeline(rounded, rounded == 0).is_steady
    dropped = np.delete(steady, [17, 60])
    assert Timeline(dropped, dropped == 0).is_steady
    jumping = np.cumsum(np.tile([10, 10, 40], 33))
    assert not Timeline(jumping, jumping == 10).is_steady
    assert Timeline(steady[:1], steady[:1] == 0).is_steady
