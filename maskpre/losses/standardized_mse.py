"""Squared error of targets that are standardised per sample."""

import torch
from jaxtyping import Float
from torch import Tensor

from maskpre.losses.base import Loss, LossTerm
from maskpre.ops.ranks import mean_over_ranks

EPS = 1e-6


class StandardizedMSE(Loss):
    """Mean squared error after each sample's targets were standardised over its tokens of the region.

    HPM's absolute loss (Wang et al., CVPR 2023): unbiased variance over a sample's tokens, per value, eps
    1e-6. Runs in float32 at least.
    """

    def forward(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        weight: Float[Tensor, "b n #k"] | None,
    ) -> LossTerm:
        """See `Loss.forward`."""
        precise = torch.promote_types(prediction.dtype, torch.float32)
        share = torch.ones_like(target[..., :1], dtype=precise) if weight is None else weight.to(precise)
        prediction, target = prediction.to(precise), target.to(precise)
        count = share.sum(dim=1, keepdim=True)
        mean = (target * share).sum(dim=1, keepdim=True) / count
        centred = target - mean
        variance = (centred.square() * share).sum(dim=1, keepdim=True) / (count - 1)
        squared = (prediction - centred / (variance + EPS).sqrt()).square()
        value = (squared * share).sum() / mean_over_ranks(share.expand_as(squared).sum())
        return LossTerm(value, squared.mean(dim=-1))
