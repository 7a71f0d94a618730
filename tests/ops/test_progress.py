import pytest

from maskpre.ops.progress import epoch_of


@pytest.mark.parametrize("steps_per_epoch", [1, 7, 625, 1251])
@pytest.mark.parametrize("epochs", [1, 3, 29, 100])
def test_epochs_begin_exactly_at_their_first_step(steps_per_epoch: int, epochs: int) -> None:
    total = steps_per_epoch * epochs
    for epoch in range(epochs):
        first = epoch * steps_per_epoch
        assert epoch_of(first / total, epochs) == epoch
        assert epoch_of((first + steps_per_epoch - 1) / total, epochs) == epoch
    assert epoch_of(1.0, epochs) == epochs - 1


def test_runs_may_end_within_an_epoch() -> None:
    assert [epoch_of(share, 2.5) for share in (0.0, 0.39, 0.4, 0.8, 1.0)] == [0, 0, 1, 2, 2]
    assert epoch_of(0.9, 0.25) == 0
