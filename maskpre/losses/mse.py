"""Mean squared error."""

from jaxtyping import Float
from torch import Tensor

from maskpre.losses.base import Loss, LossTerm


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
        squared = (prediction - target).square()
        per_token = squared.mean(dim=-1)
        if weight is None:
            return LossTerm(per_token.mean(), per_token)
        if weight.shape[-1] == 1:
            return LossTerm((per_token * weight[..., 0]).sum() / weight.sum(), per_token)
        return LossTerm((squared * weight).sum() / weight.sum(), per_token)
