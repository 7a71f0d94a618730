"""Predictions out of a memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskpre.encoders.base import EncoderSpec
from maskpre.ops.mlp import gelu_mlp
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Located, MaskPlan, Step


class MemoryPredictor(Predictor):
    """Replaces what `predictor` predicts by a mean of `size` learnt rows, weighted by what it predicts.

    A three-layer MLP as wide as the prediction gives the logits of the weights (`memory_size` of SIGMA,
    Salehi et al., ECCV 2024, after DPC's memory; no published recipe uses it).

    Raises ValueError for fewer than two rows, or as `predictor` does.
    """

    fills_hidden: ClassVar[bool] = True
    predicts_class: ClassVar[bool] = True

    def __init__(
        self,
        *,
        encoder: EncoderSpec,
        out_dim: int,
        region: str,
        size: int,
        predictor: Callable[..., Predictor],
    ) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        if size < 2:
            raise ValueError(f"size must be at least 2 rows, got {size}")
        self.predictor = predictor(encoder=encoder, out_dim=out_dim, region=region)
        self.taps, self.takes_ragged = self.predictor.taps, self.predictor.takes_ragged
        self.input_of, self.input_dim = self.predictor.input_of, self.predictor.input_dim
        self.memory = nn.Parameter(torch.randn(size, out_dim))
        self.head = gelu_mlp([out_dim, out_dim, out_dim, size])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `Predictor.set_grad_checkpointing`."""
        self.predictor.set_grad_checkpointing(enable)

    def prepare(self, encoded: Encoded) -> Encoded:
        """See `Predictor.prepare`."""
        return self.predictor.prepare(encoded)

    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Predict, and look it up."""
        found: Located = self.predictor(encoded, plan, step)
        prefix = None if found.prefix is None else self._recall(found.prefix)
        return replace(found, tokens=self._recall(found.tokens), prefix=prefix)

    def _recall(self, query: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        weights: Tensor = self.head(query).softmax(dim=-1)
        return weights @ self.memory
