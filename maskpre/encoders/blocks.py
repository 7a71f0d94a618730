"""Running timm's transformer blocks with stochastic depth that is a function of the sample."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskpre.types import Noise


def residual_scales(
    noise: Noise | None, rates: list[float], *, training: bool
) -> list[tuple[Tensor, Tensor] | None]:
    """Per block, the factors (b, 1, 1) of its two residual branches: 0 or 1 / (1 - rate); None for no change.

    Stochastic depth (Huang et al. 2016) as in timm, but drawn per sample from `noise`. Rates are in [0, 1).
    """
    if noise is None or not training or not any(rates):
        return [None] * len(rates)
    draws = noise.uniform("drop_path", 2 * len(rates))
    rate = torch.tensor(rates, device=draws.device).repeat_interleave(2)
    scales = (draws >= rate) / (1 - rate)
    return [
        (scales[:, 2 * i, None, None], scales[:, 2 * i + 1, None, None]) if rates[i] > 0 else None
        for i in range(len(rates))
    ]


def run_block(
    block: nn.Module, x: Float[Tensor, "b n d"], scales: tuple[Tensor, Tensor] | None
) -> Float[Tensor, "b n d"]:
    """One pre-norm block; with `scales`, its residual branches are weighted per sample."""
    if scales is None:
        return block(x)
    first, second = (scale.to(x.dtype) for scale in scales)
    x = x + first * block.ls1(block.attn(block.norm1(x)))
    return x + second * block.ls2(block.mlp(block.norm2(x)))


def run_blocks(
    blocks: Iterable[nn.Module],
    x: Float[Tensor, "b n d"],
    scales: list[tuple[Tensor, Tensor] | None],
    *,
    recompute: bool,
) -> Float[Tensor, "b n d"]:
    """All blocks in order; `recompute` trades a second forward for not storing their activations."""
    for block, scale in zip(blocks, scales, strict=True):
        if recompute and torch.is_grad_enabled():
            x = checkpoint(run_block, block, x, scale, use_reentrant=False)
        else:
            x = run_block(block, x, scale)
    return x
