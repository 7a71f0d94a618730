"""MaskAlign's dynamic alignment: which layers of the student go with which of the teacher is learnt."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskpre.encoders.base import EncoderSpec
from maskpre.encoders.init import init_mae
from maskpre.predictors.base import Predictor, at_region
from maskpre.targets.base import Layers
from maskpre.types import Encoded, Located, MaskPlan, Step, Taps, split_region

Fusion = Literal["linear", "sum", "simple"]
Head = Literal["linear", "norm_linear", "mlp", "mlp2"]
# Added to every entry of the identity that "linear" starts from.
SPREAD = 0.01


def make_head(kind: Head, width: int, out_dim: int) -> nn.Module:
    """From the student's width to the teacher's, with MAE's initialisation."""
    layers: dict[Head, list[nn.Module]] = {
        "linear": [],
        "norm_linear": [nn.LayerNorm(width, eps=1e-6)],
        "mlp": [nn.Linear(width, width), nn.GELU()],
        "mlp2": [nn.Linear(width, width), nn.LayerNorm(width, eps=1e-6)],
    }
    last = nn.Linear(width, out_dim)
    head = nn.Sequential(*layers[kind], last) if layers[kind] else last
    init_mae(head)
    return head


class DynamicAlignment(Predictor):
    """Predicts hidden layers of a teacher from mixtures of all layers of the student (MaskAlign, Xue et al.
    2023, section 3.2).

    Layer k of the teacher is predicted from s_k = sum_b A[k, b] h_b, where h_b are the student's hidden
    layers, by a `head` of its own: a linear layer, behind a norm ("norm_linear"), a GELU ("mlp") or a norm
    ("mlp2") of a first one. A is learnt without constraint and shared by tokens and channels. `fusion`
    "linear" starts it from the identity + 0.01 and needs students as deep as the teacher, "sum" from
    1 / depth, "simple" has none: s_k = h_k. Only layers that the target counts have heads.

    Raises ValueError if the target is no hidden layers, the encoder gives none, or depths must agree.
    """

    fills_hidden: ClassVar[bool] = False
    predicts_class: ClassVar[bool] = True
    takes_ragged = True

    def __init__(
        self,
        *,
        encoder: EncoderSpec,
        out_dim: int,
        region: str,
        target_layers: Layers | None,
        fusion: Fusion = "linear",
        head: Head = "linear",
    ) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        _check(encoder, target_layers, fusion)
        assert target_layers is not None
        depth, chosen = encoder.num_layers, target_layers.chosen
        self.rows = [layer - 1 for layer in chosen]
        self.mixing = (
            None if fusion == "simple" else nn.Parameter(_mixing(fusion, target_layers.depth, depth))
        )
        width = out_dim // len(chosen)
        heads = {str(row): make_head(head, encoder.layer_dim, width) for row in self.rows}
        self.heads = nn.ModuleDict(heads)
        self.sources = chosen if fusion == "simple" else tuple(range(1, depth + 1))
        self.taps = Taps(hidden=frozenset(self.sources))

    def _mixed(self, encoded: Encoded) -> list[Float[Tensor, "b n d"]]:
        """What each head reads, prefix tokens first."""
        hidden = [encoded.hidden[layer] for layer in self.sources]
        if self.mixing is None:
            return hidden
        return list(torch.einsum("ks,sbnd->kbnd", self.mixing[self.rows], torch.stack(hidden)).unbind())

    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Predict the region's cells, layers side by side."""
        _, with_class = split_region(self.region)
        split, values = encoded.num_prefix_tokens, []
        for mixed, head in zip(self._mixed(encoded), self.heads.values(), strict=True):
            whole = Located(
                mixed[:, split:], encoded.grid, encoded.ids, encoded.covers, mixed[:, :split], encoded.lengths
            )
            chosen = at_region(whole, plan, self.region)
            values.append(head(chosen.with_class() if with_class else chosen.tokens))
        joined = torch.cat(values, dim=2)
        prefix, tokens = (joined[:, :1], joined[:, 1:]) if with_class else (None, joined)
        return Located(tokens, chosen.grid, chosen.ids, chosen.covers, prefix, chosen.lengths)


def _mixing(fusion: Fusion, teacher: int, student: int) -> Float[Tensor, "t s"]:
    return torch.eye(student) + SPREAD if fusion == "linear" else torch.full((teacher, student), 1 / student)


def _check(encoder: EncoderSpec, layers: Layers | None, fusion: Fusion) -> None:
    if layers is None:
        raise ValueError(
            "DynamicAlignment predicts hidden layers of another network, and the target is none; use "
            "target=features with target.layers=top5, or predictor=linear"
        )
    if not encoder.num_layers:
        raise ValueError(
            "DynamicAlignment mixes hidden layers, which the encoder doesn't give; use encoder=vit"
        )
    if fusion != "sum" and encoder.num_layers != layers.depth:
        raise ValueError(
            f"fusion={fusion} needs an encoder as deep as the teacher, but they have {encoder.num_layers} "
            f"and {layers.depth} layers; use fusion=sum"
        )
