"""Ranks that act together on what one of them was asked."""

import time

import torch
from lightning import Trainer

# Agreeing waits for the device: not at every step, but soon enough for a scheduler in a hurry.
SECONDS = 2.0
MOST_STEPS = 100


class Agreement:
    """Tells all ranks, at the same optimiser step, what any of them wishes; about every two seconds.

    When the ranks agree next follows from how long their steps took since they last did, which is part of
    what they tell each other.
    """

    def __init__(self) -> None:
        self._last = self._next = 0
        self._at = time.monotonic()

    def start(self, step: int) -> None:
        """Agree at the end of the step after `step`, and count from now."""
        self._last, self._next = step, step + 1
        self._at = time.monotonic()

    def any_of(self, trainer: Trainer, *wishes: bool) -> list[bool]:
        """Which wishes any rank has; none while it is not time to ask."""
        if trainer.world_size == 1:
            return list(wishes)
        step = trainer.global_step
        if step < self._next:
            return [False] * len(wishes)
        now = time.monotonic()
        per_step = (now - self._at) / max(1, step - self._last)
        said = torch.tensor([*wishes, per_step], dtype=torch.float32, device=trainer.strategy.root_device)
        *wanted, slowness = trainer.strategy.reduce(said, reduce_op="sum").tolist()
        ahead = int(SECONDS * trainer.world_size / max(slowness, 1e-6))
        self._last, self._next, self._at = step, step + max(1, min(ahead, MOST_STEPS)), now
        return [number > 0 for number in wanted]
