"""What an evaluation answers."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from lightning import Trainer
from torch import Tensor

from maskpre.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Accuracies on the test samples, in [0, 1]; `details` names further numbers, such as the chosen rate."""

    top1: float
    top5: float
    details: dict[str, float] = field(default_factory=dict)


def count_hits(scores: Float[Tensor, "b k"], labels: Int[Tensor, "b"]) -> tuple[int, int]:
    """How many samples have their label ranked first, and among the first five (or all, if fewer)."""
    ranked = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return int(ranked[:, 0].sum()), int(ranked.sum())


class HitCounter:
    """Counts this rank's hits of one pass over the val split; each sample counts once."""

    def __init__(self) -> None:
        self._counts = torch.zeros(3, dtype=torch.int64)

    def reset(self) -> None:
        """Start anew."""
        self._counts.zero_()

    def add(self, scores: Float[Tensor, "b k"], labels: Int[Tensor, "b"]) -> None:
        """Count a batch."""
        self._counts += torch.tensor([*count_hits(scores, labels), len(scores)])

    def result(self, trainer: Trainer) -> ProbeResult:
        """Accuracies over all ranks, which must all call this; UserError if there was no sample."""
        counts = self._counts.to(trainer.strategy.root_device)
        summed = trainer.strategy.reduce(counts, reduce_op="sum")
        assert isinstance(summed, Tensor)
        top1, top5, total = summed.tolist()
        if not total:
            raise UserError("no val sample could be read")
        return ProbeResult(top1=top1 / total, top5=top5 / total)
