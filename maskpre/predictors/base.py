"""What every predictor is: from encoded tokens to values at cells."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.types import Encoded, Located, MaskPlan, Step


class Predictor(nn.Module, ABC):
    """Turns the tokens of one pass into `out_dim` values per cell of the region the losses read.

    `fills_hidden` says whether it can predict where the encoder dropped the token.
    """

    fills_hidden: ClassVar[bool]

    def __init__(self, *, encoder: EncoderSpec, out_dim: int, region: str) -> None:
        super().__init__()
        if region == "masked" and encoder.hidden == "drop" and not self.fills_hidden:
            raise ValueError(
                f"{type(self).__name__} predicts only where the encoder gives tokens, but the encoder drops "
                "hidden ones and the loss reads the region 'masked'; use predictor=mae_decoder, "
                "encoder.hidden=replace, or the region 'visible'"
            )
        self.out_dim, self.region = out_dim, region

    @abstractmethod
    def forward(self, encoded: Encoded, plan: MaskPlan, step: Step) -> Located:
        """Predict for the cells of the region, or for more."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, where the predictor is deep enough to gain by it."""
