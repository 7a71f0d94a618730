"""What an evaluation answers."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor


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
