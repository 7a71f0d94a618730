"""What every predictor is: from encoded tokens to values at cells."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.types import OUTPUT, Encoded, Located, MaskPlan, Step, Taps, gather_tokens, split_region


def at_region(encoded: Located, plan: MaskPlan | None, region: str) -> Located:
    """The encoded tokens of the region's cells; all that there are where some, or none, were hidden."""
    if plan is None or encoded.ids is not None:
        return encoded
    cells, _ = split_region(region)
    chosen = plan.ids(cells, encoded.grid)
    if chosen is None:
        return encoded
    tokens, lengths = gather_tokens(encoded.tokens, chosen), plan.num_ids(cells, encoded.grid)
    return Located(tokens, encoded.grid, chosen, cells, encoded.prefix, lengths)


class Predictor(nn.Module, ABC):
    """Turns the tokens of one pass into `out_dim` values per cell of the region the losses read.

    `fills_hidden` says whether it can predict where the encoder dropped the token, `predicts_class` whether
    it predicts for the class token too, `takes_ragged` whether it can run where samples differ in the number
    of visible cells. `input_of` names the predictor whose `prepare`d input it is given
    instead of the encoder's tokens; `taps` is what it reads of the pass.
    """

    fills_hidden: ClassVar[bool]
    predicts_class: ClassVar[bool] = False
    takes_ragged: bool = False
    input_of: str | None = None
    taps: Taps = OUTPUT

    def __init__(self, *, encoder: EncoderSpec, out_dim: int, region: str) -> None:
        super().__init__()
        cells, with_class = split_region(region)
        if with_class and not self.predicts_class:
            raise ValueError(
                f"{type(self).__name__} predicts no class token, but the loss reads the region {region!r}; "
                f"use the region {cells!r}"
            )
        if with_class and not encoder.num_prefix_tokens:
            raise ValueError(
                f"the loss reads the region {region!r}, but the encoder has no class token; use the region "
                f"{cells!r} or encoder.class_token=true"
            )
        if "masked" in cells.split("&") and encoder.omits_hidden and not self.fills_hidden:
            raise ValueError(
                f"{type(self).__name__} predicts only where the encoder gives tokens, but the encoder drops "
                f"hidden ones and the loss reads the region {cells!r}; use predictor=mae_decoder, "
                "encoder.hidden=replace, or the region 'visible'"
            )
        self.input_dim, self.out_dim, self.region = encoder.embed_dim, out_dim, region

    def prepare(self, encoded: Encoded) -> Encoded:
        """What predictors that share this one's input are given, `input_dim` wide.

        Only passes call it: where weights are divided among ranks, they are gathered around it.
        """
        return encoded

    @abstractmethod
    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Predict for the cells of the region, or for more; for all cells where nothing is hidden."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, where the predictor is deep enough to gain by it."""
