import random

import numpy as np
import torch

from maskpre.evaluation.global_rng import seeded_globals, step_seed


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_draws_inside_follow_the_seed_and_those_outside_go_on_undisturbed():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    undisturbed = [draws(), draws()]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = draws()
    with seeded_globals(7):
        inside = draws()
    with seeded_globals(7):
        assert draws() == inside
    assert [first, draws()] == undisturbed


def test_step_seeds_differ_by_seed_rank_and_step():
    seeds = {step_seed(*key) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(seeds) == 4
    assert max(seeds) < 2**32
