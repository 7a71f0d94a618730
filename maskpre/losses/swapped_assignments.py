"""Each of two views of a token predicts the cluster of the other."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from maskpre.losses.base import Loss, LossTerm
from maskpre.ops.ranks import mean_over_ranks
from maskpre.ops.sinkhorn import Reduce, over_ranks, sinkhorn, within_rank


class SwappedAssignments(Loss):
    """Cross-entropy of either side's cluster scores with the cluster that the other side is assigned to.

    Scores are cosines with k prototypes. The tokens of the region, of all ranks together, are spread over the
    clusters by `iterations` of Sinkhorn-Knopp with the entropy `eps`, predictions and targets separately;
    what a token has most of is its cluster. The scores are divided by `temperature` (SIGMA, Salehi et al.,
    ECCV 2024, arXiv 2407.15447, equation 6). Both terms are weighted means over the region's tokens. Runs in
    float32 at least. Under evaluation assignments are this rank's own.

    It measures `target_loss` and `predicted_loss`, the two terms; for either side, how evenly the tokens of
    all ranks use the clusters, as an entropy between 0 (one cluster) and 1, by assignment
    (`*_assigned_entropy`) and by the prototype that is nearest (`*_nearest_entropy`), and `clusters_used`,
    how many have a target. Features that collapse show in what is nearest: assignments are spread anyway.
    """

    of_scores = True
    reduce: Reduce

    def __init__(self, *, temperature: float = 0.1, eps: float = 0.05, iterations: int = 10) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("eps", eps)):
            if value <= 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")
        if iterations < 0:
            raise ValueError(f"iterations must be at least 0, got {iterations}")
        self.temperature, self.eps, self.iterations = temperature, eps, iterations
        self.reduce = over_ranks

    def assign(
        self, scores: Float[Tensor, "b n k"], weight: Float[Tensor, "b n"] | None
    ) -> Float[Tensor, "b n k"]:
        """How much of every token each cluster gets; see `sinkhorn`."""
        weights = None if weight is None else weight.flatten()
        shares = sinkhorn(
            scores.flatten(0, 1),
            eps=self.eps,
            iterations=self.iterations,
            weight=weights,
            reduce=self.reduce if self.training else within_rank,
        )
        return shares.unflatten(0, scores.shape[:2])

    def forward(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        weight: Float[Tensor, "b n #k"] | None,
    ) -> LossTerm:
        """See `Loss.forward`; both are scores. A token's own loss is the sum of its two terms."""
        share = None if weight is None else weight.mean(dim=-1)
        of_prediction, of_target = (
            self.assign(scores, share).argmax(dim=-1) for scores in (prediction, target)
        )
        target_map, predicted_map = self._errors(target, of_prediction), self._errors(prediction, of_target)
        terms = {"target_loss": _mean(target_map, share), "predicted_loss": _mean(predicted_map, share)}
        usage = self._measure(prediction, target, of_prediction, of_target, share)
        value = terms["target_loss"] + terms["predicted_loss"]
        return LossTerm(value, target_map + predicted_map, {**terms, **usage})

    def _errors(self, scores: Float[Tensor, "b n k"], wanted: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32)) / self.temperature
        return cross_entropy(precise.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)

    @torch.no_grad()
    def _measure(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        of_prediction: Int[Tensor, "b n"],
        of_target: Int[Tensor, "b n"],
        share: Float[Tensor, "b n"] | None,
    ) -> dict[str, Tensor]:
        """How the clusters are used, on the device."""
        ids = torch.stack([of_target, of_prediction, target.argmax(dim=-1), prediction.argmax(dim=-1)])
        given = torch.ones_like(ids[0], dtype=torch.float32) if share is None else share.float()
        counts = given.new_zeros(len(ids), target.shape[-1])
        counts.scatter_add_(1, ids.flatten(1), given.flatten().expand(len(ids), -1))
        counts = (self.reduce if self.training else within_rank)(counts, "sum")
        names = ("target_assigned", "predicted_assigned", "target_nearest", "predicted_nearest")
        measured = {f"{name}_entropy": _evenness(row) for name, row in zip(names, counts, strict=True)}
        return {"clusters_used": (counts[0] > 0).sum(), **measured}


def _mean(values: Float[Tensor, "b n"], share: Float[Tensor, "b n"] | None) -> Float[Tensor, ""]:
    return values.mean() if share is None else (values * share).sum() / mean_over_ranks(share.sum())


def _evenness(counts: Float[Tensor, "k"]) -> Float[Tensor, ""]:
    """Entropy of the counts' shares, relative to that of equal counts."""
    return torch.special.entr(counts / counts.sum()).sum() / math.log(max(len(counts), 2))
