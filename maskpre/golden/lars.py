"""Steps of LARS, the optimiser of MAE's linear probe."""

from dataclasses import dataclass

import torch

from maskpre.golden.case import Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.optim import Lars


@dataclass
class Settings:
    """The optimiser's arguments and the number of steps."""

    lr: float
    steps: int
    weight_decay: float = 0.0
    momentum: float = 0.9
    trust_coefficient: float = 0.001


def replay(case: Case) -> Replay:
    """The parameters after every step, given each step's gradients."""
    s = case.settings(Settings)
    params = {name: torch.nn.Parameter(value.clone()) for name, value in case.weights.items()}
    optimizer = Lars(
        params.values(),
        lr=s.lr,
        weight_decay=s.weight_decay,
        momentum=s.momentum,
        trust_coefficient=s.trust_coefficient,
    )
    after: Tensors = {}
    for step in range(s.steps):
        for name, parameter in params.items():
            parameter.grad = case.input(f"step{step}/{name}")
        optimizer.step()
        after |= {f"step{step}/{name}": value.detach().clone() for name, value in params.items()}
    return Replay(tensors=after)
