"""Variants of timm's multi-head attention: who of queries, keys and values has a bias, and cosine scores."""

import math
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

QkvBias = Literal["all", "no_key", "none"]
Scores = Literal["dot", "cosine"]
START = math.log(10)
# The official ceiling; not quite log 100.
CEILING = 4.6052


class KeylessLinear(nn.Linear):
    """Projects to queries, keys and values; what `bias` holds for keys is never added and never trained.

    BEiT and VideoMAE have one bias for queries and one for values. Here they are the ends of one `bias`, as
    timm's ViTs name it, whose middle third is zero.
    """

    @property
    def used_bias(self) -> Float[Tensor, "o"]:
        """The bias without the keys' part."""
        query, key, value = self.bias.chunk(3)
        return torch.cat([query, torch.zeros_like(key), value])

    def reset_parameters(self) -> None:
        """Torch's weights and a zero bias."""
        super().reset_parameters()
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Queries, keys and values side by side."""
        return linear(x, self.weight, self.used_bias)


class CosineAttention(Attention):
    """Attention whose scores are cosines times exp(`logit_scale`), one factor per head of at most 100.

    As in Swin V2 (Liu et al., CVPR 2022, section 3.3), which timm has the factor's name from, and in VideoMAE
    V2.
    """

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool) -> None:
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), START))

    def compared(self, q: Float[Tensor, "b n h e"], k: Float[Tensor, "b n h e"]) -> tuple[Tensor, Tensor]:
        """Queries and keys whose products are the scores."""
        scale = self.logit_scale.clamp(max=CEILING).exp()[:, 0]
        return normalize(q, dim=-1) * scale, normalize(k, dim=-1)

    def forward(self, x: Float[Tensor, "b n d"], *unused: Any, **options: Any) -> Float[Tensor, "b n d"]:
        """What all tokens gather from all."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).unbind(2)
        q, k, v = (each.transpose(1, 2) for each in (*self.compared(q, k), v))
        mixed = scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def adapt_attention(blocks: Iterable[nn.Module], *, qkv_bias: QkvBias, scores: Scores) -> None:
    """Give the blocks the attention that is asked for; what is replaced starts anew.

    Raises ValueError for an unknown choice.
    """
    if qkv_bias not in ("all", "no_key", "none"):
        raise ValueError(f"qkv_bias must be 'all', 'no_key' or 'none', got {qkv_bias!r}")
    if scores not in ("dot", "cosine"):
        raise ValueError(f"scores must be 'dot' or 'cosine', got {scores!r}")
    for block in blocks:
        attn = cast(Attention, cast(Block, block).attn)
        dim = attn.qkv.in_features
        if scores == "cosine":
            attn = CosineAttention(dim, num_heads=attn.num_heads, qkv_bias=True)
            block.attn = attn
        if qkv_bias == "no_key":
            attn.qkv = KeylessLinear(dim, 3 * dim)
        elif qkv_bias == "none":
            attn.qkv = nn.Linear(dim, 3 * dim, bias=False)
