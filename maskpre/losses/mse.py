"""Mean squared error."""

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.losses.base import Loss, LossTerm, region_mean


class MeanSquaredError(Loss):
    """Mean over a token's values, then the weighted mean over all tokens of the batch.

    MAE (He et al. 2022): sum(weight * token loss) / sum(weight), one ratio for the batch.
    """

    def forward(
        self,
        prediction: Float[Tensor, "b n k"],
        target: Float[Tensor, "b n k"],
        weight: Float[Tensor, "b n #k"] | None,
    ) -> LossTerm:
        """See `Loss.forward`."""
        # In one pass each way, where a difference that is squared takes five.
        return region_mean(nn.functional.mse_loss(prediction, target, reduction="none"), weight)
