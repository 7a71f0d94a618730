"""Libraries that draw from process-wide generators, made functions of a seed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_CPU = torch.device("cpu")


@contextmanager
def seeded_globals(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global generators inside; they continue undisturbed afterwards.

    `seed` has at most 32 bits. `device` is where the code inside draws with torch.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def step_seed(seed: int, rank: int, step: int) -> int:
    """A 32-bit seed for one rank's step of one run."""
    return int(np.random.SeedSequence((seed, rank, step)).generate_state(1)[0])
