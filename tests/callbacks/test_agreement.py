"""Ranks learn of each other's wishes at the same steps."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maskpre.callbacks import agreement
from maskpre.callbacks.agreement import Agreement


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(agreement, "time", clock)
    return clock


def trainer(world: int, others: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    strategy = SimpleNamespace(root_device="cpu", reduce=lambda said, reduce_op: said + others(said))
    return SimpleNamespace(world_size=world, global_step=0, strategy=strategy)


def steps_of_agreement(clock: Clock, seconds_per_step: float, steps: int) -> list[int]:
    asked: list[int] = []
    run = trainer(2, lambda said: asked.append(run.global_step) or said)
    clock.now = 0.0
    agreed = Agreement()
    agreed.start(0)
    for step in range(1, steps + 1):
        run.global_step, clock.now = step, step * seconds_per_step
        agreed.any_of(run, False)
    return asked


def test_slow_steps_are_agreed_on_each_time_fast_ones_every_two_seconds(clock: Clock) -> None:
    assert steps_of_agreement(clock, 3.0, 4) == [1, 2, 3, 4]
    assert steps_of_agreement(clock, 0.25, 30) == [1, 9, 17, 25]
    assert steps_of_agreement(clock, 0.001, 250) == [1, 101, 201]


def test_one_rank_is_enough(clock: Clock) -> None:
    run = trainer(2, lambda said: torch.tensor([0.0, 1.0, 1.0]))
    agreed = Agreement()
    agreed.start(0)
    run.global_step = 1
    assert agreed.any_of(run, False, False) == [False, True]


def test_a_single_rank_asks_nobody(clock: Clock) -> None:
    run = trainer(1, lambda said: pytest.fail("asked others"))
    assert Agreement().any_of(run, True, False) == [True, False]
