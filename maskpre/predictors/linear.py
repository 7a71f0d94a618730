"""One linear layer per token."""

from typing import ClassVar

from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.predictors.base import Predictor, at_region
from maskpre.types import Encoded, Located, MaskPlan, Step, split_region


class LinearPredictor(Predictor):
    """A linear map from each output token to the values of its cell.

    For pixels this is SimMIM's 1x1 convolution and pixel shuffle (Xie et al. 2022, section 3.3), with the
    values of a cell ordered (row, column, channel); torch's default initialisation of a convolution.
    """

    fills_hidden: ClassVar[bool] = False
    predicts_class: ClassVar[bool] = True
    takes_ragged = True

    def __init__(self, *, encoder: EncoderSpec, out_dim: int, region: str) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        self.pred = nn.Linear(encoder.embed_dim, out_dim)

    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Project the tokens of the region only."""
        chosen = at_region(encoded, plan, self.region)
        _, with_class = split_region(self.region)
        values = self.pred(chosen.with_class() if with_class else chosen.tokens)
        prefix, tokens = (values[:, :1], values[:, 1:]) if with_class else (None, values)
        return Located(tokens, chosen.grid, chosen.ids, chosen.covers, prefix, chosen.lengths)
