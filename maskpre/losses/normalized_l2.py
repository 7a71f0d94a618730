"""Squared distance of directions."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from maskpre.losses.base import Loss, LossTerm
from maskpre.ops.ranks import mean_over_ranks


class NormalizedL2(Loss):
    """Squared distance of predictions and targets scaled to unit length: 2 - 2 cos, per token.

    The weighted mean over all tokens of the batch (HPM with features as targets, Wang et al., arXiv
    2312.13714). Runs in float32 at least.
    """

    def forward(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        weight: Float[Tensor, "b n #k"] | None,
    ) -> LossTerm:
        """See `Loss.forward`."""
        precise = torch.promote_types(prediction.dtype, torch.float32)
        difference = normalize(prediction.to(precise), dim=-1) - normalize(target.to(precise), dim=-1)
        per_token = difference.square().sum(dim=-1)
        if weight is None:
            return LossTerm(per_token.mean(), per_token)
        share = weight.mean(dim=-1)
        return LossTerm((per_token * share).sum() / mean_over_ranks(share.sum()), per_token)
