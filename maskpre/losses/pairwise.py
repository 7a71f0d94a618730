"""Ranking tokens by pairs."""

import torch
from jaxtyping import Float
from torch import Tensor

from maskpre.losses.base import Loss, LossTerm
from maskpre.ops.ranks import mean_over_ranks

EPS = 1e-6


class PairwiseRanking(Loss):
    """Says which of two tokens of a sample has the larger target, by the difference of the predictions.

    HPM (Wang et al., CVPR 2023, equation 5): -log(sigmoid(p_b - p_a) + 1e-6) where t_b > t_a, averaged over
    the pairs of tokens of one sample, and over the batch, whose targets differ. Both orders of a pair have
    the same loss, so one is computed. Weights of a pair's tokens multiply. Runs in float32 at least: under
    float16 the logarithm would be cut off.
    """

    def forward(
        self,
        prediction: Float[Tensor, "b n 1"],
        target: Float[Tensor, "b n 1"],
        weight: Float[Tensor, "b n 1"] | None,
    ) -> LossTerm:
        """See `Loss.forward`; a token's own loss is the mean over all its pairs."""
        precise = torch.promote_types(prediction.dtype, torch.float32)
        score, goal = prediction[..., 0].to(precise), target[..., 0]
        counted = (goal[:, None, :] > goal[:, :, None]).to(precise)
        if weight is not None:
            counted = counted * (weight * weight.mT)
        # Entry (a, b) is the loss of saying that b's target is larger.
        pairs = -torch.log(torch.sigmoid(score[:, None, :] - score[:, :, None]) + EPS) * counted
        value = pairs.sum() / mean_over_ranks(counted.sum()).clamp(min=EPS)
        return LossTerm(value, _per_token(pairs.detach()) / _per_token(counted).clamp(min=EPS))


def _per_token(pairs: Float[Tensor, "b n n"]) -> Float[Tensor, "b n"]:
    return pairs.sum(dim=1) + pairs.sum(dim=2)
