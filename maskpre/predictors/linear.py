"""One linear layer per token."""

from typing import ClassVar

from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Located, MaskPlan, Step, align


class LinearPredictor(Predictor):
    """A linear map from each output token to the values of its cell.

    For pixels this is SimMIM's 1x1 convolution and pixel shuffle (Xie et al. 2022, section 3.3), with the
    values of a cell ordered (row, column, channel); torch's default initialisation of a convolution.
    """

    fills_hidden: ClassVar[bool] = False

    def __init__(self, *, encoder: EncoderSpec, out_dim: int, region: str) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        self.pred = nn.Linear(encoder.embed_dim, out_dim)

    def forward(self, encoded: Encoded, plan: MaskPlan, step: Step) -> Located:
        """Project the tokens of the region only."""
        ids = plan.ids(self.region, encoded.grid) if encoded.ids is None else encoded.ids
        wanted = Located(encoded.tokens, encoded.grid, ids)
        covers = self.region if encoded.ids is None and ids is not None else encoded.covers
        return Located(self.pred(align(encoded, like=wanted)), encoded.grid, ids, covers)
