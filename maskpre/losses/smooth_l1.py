"""Absolute error that is quadratic near zero."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from maskpre.losses.base import Loss, LossTerm, region_mean


class SmoothL1(Loss):
    """`factor` times |d| - beta / 2, or d^2 / (2 beta) where |d| < beta; mean over values, then tokens.

    MaskAlign (Xue et al. 2023) counts it twice, with beta 1.
    """

    def __init__(self, *, beta: float = 1.0, factor: float = 2.0) -> None:
        super().__init__()
        if beta <= 0 or factor <= 0:
            raise ValueError(f"beta and factor must be greater than 0, got {beta} and {factor}")
        self.beta, self.factor = beta, factor

    def forward(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        weight: Float[Tensor, "b n #k"] | None,
    ) -> LossTerm:
        """See `Loss.forward`."""
        errors = smooth_l1_loss(prediction, target, beta=self.beta, reduction="none")
        return region_mean(self.factor * errors, weight)
