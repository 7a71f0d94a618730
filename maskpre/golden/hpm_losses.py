"""HPM's losses of predicted losses."""

from dataclasses import dataclass

from torch import Tensor

from maskpre.golden.case import Case
from maskpre.golden.compare import Replay
from maskpre.losses.base import Loss
from maskpre.losses.pairwise import PairwiseRanking
from maskpre.losses.standardized_mse import StandardizedMSE


@dataclass
class Settings:
    """`M` masked patches of `N` pictures; `relative` says which loss is the case's own."""

    N: int
    M: int
    relative: bool = True


def replay(case: Case) -> Replay:
    """Both losses and their gradients."""
    s = case.settings(Settings)
    relative, grad_relative = _run(PairwiseRanking(), case)
    absolute, grad_absolute = _run(StandardizedMSE(), case)
    return Replay(
        loss=relative if s.relative else absolute,
        losses={"relative": relative, "absolute": absolute},
        tensors={"grad_relative": grad_relative, "grad_absolute": grad_absolute},
    )


def _run(loss: Loss, case: Case) -> tuple[Tensor, Tensor]:
    prediction = case.input("loss_pred").clone().requires_grad_()
    value = loss(prediction[..., None], case.input("loss_target")[..., None], None).value
    value.backward()
    assert prediction.grad is not None
    return value, prediction.grad
