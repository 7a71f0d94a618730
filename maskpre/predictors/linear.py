"""One linear layer per token."""

from typing import ClassVar

from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Located, MaskPlan, Step, gather_tokens


class LinearPredictor(Predictor):
    """A linear map from each output token to the values of its cell.

    For pixels this is SimMIM's 1x1 convolution and pixel shuffle (Xie et al. 2022, section 3.3), with the
    values of a cell ordered (row, column, channel); torch's default initialisation of a convolution.
    """

    fills_hidden: ClassVar[bool] = False

    def __init__(self, *, encoder: EncoderSpec, out_dim: int, region: str) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        self.pred = nn.Linear(encoder.embed_dim, out_dim)

    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Project the tokens of the region only."""
        tokens, ids, covers = encoded.tokens, encoded.ids, encoded.covers
        chosen = None if plan is None or ids is not None else plan.ids(self.region, encoded.grid)
        if chosen is not None:
            tokens, ids, covers = gather_tokens(tokens, chosen), chosen, self.region
        return Located(self.pred(tokens), encoded.grid, ids, covers)
