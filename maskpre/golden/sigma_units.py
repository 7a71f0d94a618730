"""Assignments by Sinkhorn and Knopp, as SIGMA computes them."""

from dataclasses import dataclass

from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.ops.sinkhorn import sinkhorn


@dataclass
class Assigned:
    """One call; `tokens` and `prototypes` are the shape of its scores, and `world_size` cancels out."""

    tokens: int
    prototypes: int
    eps: float
    iterations: int
    world_size: int = 1


@dataclass
class Settings:
    """The calls of a case."""

    unit: str
    cases: list[Assigned]


def replay(case: Case) -> Replay:
    """Soft and hard assignments."""
    s = case.settings(Settings)
    if s.unit != "sinkhorn":
        raise CannotReplayError(f"{case.name}: unit must be 'sinkhorn', got {s.unit!r}")
    found: Tensors = {}
    for i, call in enumerate(s.cases):
        if call.world_size < 1:
            raise CannotReplayError(f"{case.name}: world_size must be at least 1, got {call.world_size}")
        scores = case.input(f"scores.{i}")
        if scores.shape != (call.tokens, call.prototypes):
            raise CannotReplayError(
                f"{case.name}: scores.{i} are {tuple(scores.shape)}, cases[{i}] says "
                f"({call.tokens}, {call.prototypes})"
            )
        shares = sinkhorn(scores, eps=call.eps, iterations=call.iterations)
        found |= {f"q.{i}": shares, f"hard.{i}": shares.argmax(dim=1)}
    return Replay(tensors=found)
