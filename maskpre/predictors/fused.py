"""Several depths of the encoder joined before a predictor."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.encoders.init import init_mae
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Located, MaskPlan, Step, Taps


class FusedPredictor(Predictor):
    """Gives `predictor` a norm of the sum of linear projections of the hidden `layers`, counted from 1.

    The multi-layer fusion of MR-MAE (Gao et al. 2023), of which the paper leaves weights and place open: here
    every predictor has projections of its own.

    Raises ValueError if the encoder doesn't give these layers, or as `predictor` does.
    """

    fills_hidden: ClassVar[bool] = True
    predicts_class: ClassVar[bool] = True

    def __init__(
        self,
        *,
        encoder: EncoderSpec,
        out_dim: int,
        region: str,
        layers: Sequence[int],
        predictor: Callable[..., Predictor],
    ) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        if not layers or not all(1 <= layer <= encoder.num_layers for layer in layers):
            raise ValueError(
                f"the encoder's hidden layers are 1 to {encoder.num_layers} (0: none can be read), got "
                f"{list(layers)}"
            )
        self.layers = tuple(layers)
        self.taps = Taps(hidden=frozenset(layers))
        width = encoder.embed_dim
        self.projections = nn.ModuleList(nn.Linear(encoder.layer_dim, width) for _ in layers)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        init_mae(self)
        self.predictor = predictor(encoder=encoder, out_dim=out_dim, region=region)
        self.takes_ragged = self.predictor.takes_ragged

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `Predictor.set_grad_checkpointing`."""
        self.predictor.set_grad_checkpointing(enable)

    def prepare(self, encoded: Encoded) -> Encoded:
        """What the inner predictor makes of the joined layers."""
        return self.predictor.prepare(self._join(encoded))

    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Predict from the joined layers."""
        return self.predictor(self._join(encoded), plan, step)

    def _join(self, encoded: Encoded) -> Encoded:
        pairs = zip(self.projections, self.layers, strict=True)
        joined = [projection(encoded.hidden[layer]) for projection, layer in pairs]
        tokens, split = self.norm(torch.stack(joined).sum(dim=0)), encoded.num_prefix_tokens
        return replace(encoded, tokens=tokens[:, split:], prefix=tokens[:, :split])
