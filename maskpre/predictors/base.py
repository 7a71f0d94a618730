"""What every predictor is: from encoded tokens to values at cells."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.types import Encoded, Located, MaskPlan, Step


class Predictor(nn.Module, ABC):
    """Turns the tokens of one pass into `out_dim` values per cell of the region the losses read.

    `fills_hidden` says whether it can predict where the encoder dropped the token. `input_of` names the
    predictor whose `prepare`d input it is given instead of the encoder's tokens.
    """

    fills_hidden: ClassVar[bool]
    input_of: str | None = None

    def __init__(self, *, encoder: EncoderSpec, out_dim: int, region: str) -> None:
        super().__init__()
        if region == "masked" and encoder.omits_hidden and not self.fills_hidden:
            raise ValueError(
                f"{type(self).__name__} predicts only where the encoder gives tokens, but the encoder drops "
                "hidden ones and the loss reads the region 'masked'; use predictor=mae_decoder, "
                "encoder.hidden=replace, or the region 'visible'"
            )
        self.input_dim, self.out_dim, self.region = encoder.embed_dim, out_dim, region

    def prepare(self, encoded: Encoded) -> Encoded:
        """What predictors that share this one's input are given, `input_dim` wide."""
        return encoded

    @abstractmethod
    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Predict for the cells of the region, or for more; for all cells where nothing is hidden."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, where the predictor is deep enough to gain by it."""
