"""Absolute error per pixel."""

from jaxtyping import Float
from torch import Tensor

from maskpre.losses.base import Loss, LossTerm
from maskpre.ops.ranks import mean_over_ranks, num_ranks

EPS = 1e-5


class PixelL1(Loss):
    """Sum of absolute errors over the region / (its pixels + 1e-5) / channels.

    SimMIM (Xie et al. 2022, section 3.4). Pixels are counted once, whatever the number of channels
    `in_chans`; a token's values are its pixels.
    """

    def __init__(self, *, in_chans: int) -> None:
        super().__init__()
        self.in_chans: int = in_chans

    def forward(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        weight: Float[Tensor, "b n #k"] | None,
    ) -> LossTerm:
        """See `Loss.forward`."""
        error = (prediction - target).abs()
        per_token = error.mean(dim=-1)
        total, values = error.sum(), error.new_tensor(error.numel())
        if weight is not None:
            total, values = (error * weight).sum(), mean_over_ranks(weight.expand_as(error).sum())
        pixels = values / self.in_chans
        return LossTerm(total / (pixels + EPS / num_ranks()) / self.in_chans, per_token)
