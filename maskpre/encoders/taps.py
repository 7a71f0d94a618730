"""Reading the inside of a plain transformer while it runs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import linear

from maskpre.encoders.attend import Packing
from maskpre.encoders.blocks import Scales, run_block, run_blocks
from maskpre.parallel.gather import inside
from maskpre.types import Taps

Layers = dict[int, Tensor]


def gives_class_attention(block: nn.Module) -> bool:
    """Whether `class_attention` knows how a block attends."""
    return type(block) is Block and type(block.attn) is Attention


def class_attention(block: nn.Module, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
    """What share of its attention the class token, the first, pays to each token, per head.

    Computed from one query beside the block, which keeps its fused attention; at least in float32.
    """
    attn: Any = block.attn
    normed: Tensor = block.norm1(x)  # type: ignore[operator]
    query_weight, key_weight, _ = attn.qkv.weight.chunk(3)
    query_bias, key_bias, _ = (None,) * 3 if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    query = linear(normed[:, :1], query_weight, query_bias).unflatten(2, (attn.num_heads, -1))
    key = linear(normed, key_weight, key_bias).unflatten(2, (attn.num_heads, -1))
    query, key = attn.q_norm(query.transpose(1, 2)), attn.k_norm(key.transpose(1, 2))
    scores = (query * attn.scale @ key.transpose(2, 3)).squeeze(2)
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def run_tapped(
    blocks: Sequence[nn.Module],
    x: Float[Tensor, "b n d"],
    scales: Sequence[Scales],
    *,
    taps: Taps,
    recompute: bool,
    packing: Packing | None = None,
) -> tuple[Float[Tensor, "b n d"], Layers, Layers]:
    """`run_blocks` up to the last block that anybody reads, and the hidden layers and attention asked for.

    Raises ValueError if attention is asked for of packed samples.
    """
    if packing is not None and taps.attention:
        raise ValueError("the class token's attention can't be read where samples are packed")
    run = run_block if packing is None else partial(run_block, packing=packing)
    num_blocks = taps.num_blocks(len(blocks))
    cuts = sorted({num_blocks, *taps.hidden, *(layer - 1 for layer in taps.attention)})
    hidden: Layers = {}
    attention: Layers = {}
    start = 0
    for cut in cuts:
        x = run_blocks(blocks[start:cut], x, scales[start:cut], recompute=recompute, run=run)
        start = cut
        if cut in taps.hidden:
            hidden[cut] = x
        if cut + 1 in taps.attention:
            attention[cut + 1] = inside(blocks[cut], class_attention, x)
    return x, hidden, attention
