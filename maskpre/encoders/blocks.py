"""Running timm's transformer blocks with stochastic depth that is a function of the sample."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskpre.encoders.attend import ALL, Packing, attends_by_parts, hooks_on, self_attention
from maskpre.encoders.plain import PlainBlock
from maskpre.parallel.gather import inside, kind_of
from maskpre.types import Noise

Scales = tuple[Tensor, Tensor] | None
BlockRunner = Callable[[Any, Tensor, Scales], Tensor]


def check_drop_path(rate: float) -> float:
    """ValueError unless blocks can be dropped at this rate."""
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path_rate must be in [0, 1), got {rate}")
    return rate


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Rates of stochastic depth, rising linearly from 0 to `last`; ValueError unless that is in [0, 1)."""
    return torch.linspace(0, check_drop_path(last), depth, device="cpu").tolist()


def residual_scales(
    noise: Noise | None, rates: list[float], *, training: bool, stream: str = "drop_path"
) -> list[Scales]:
    """Per block, the factors (b, 1, 1) of its two residual branches: 0 or 1 / (1 - rate); None for no change.

    Stochastic depth (Huang et al. 2016) as in timm, but drawn per sample from the `stream` of `noise`. Rates
    are in [0, 1).
    """
    if noise is None or not training or not any(rates):
        return [None] * len(rates)
    draws = noise.uniform(stream, 2 * len(rates))
    rate = torch.tensor(rates).repeat_interleave(2).to(draws.device, non_blocking=True)
    scales = (draws >= rate) / (1 - rate)
    return [
        (scales[:, 2 * i, None, None], scales[:, 2 * i + 1, None, None]) if rates[i] > 0 else None
        for i in range(len(rates))
    ]


def run_block(
    block: nn.Module,
    x: Float[Tensor, "b n d"],
    scales: Scales,
    *,
    read: slice = ALL,
    packing: Packing | None = None,
) -> Float[Tensor, "b q d"]:
    """One pre-norm block; with `scales`, its residual branches are weighted per sample.

    Only the tokens `read` come out. With `packing`, samples lie one after another in one row, and all
    come out.
    """
    assert packing is None or read == ALL
    if scales is None:
        plain = PlainBlock.of(block)
        if plain is not None:
            return plain.finish(x, plain.project(x), read, packing)
        if kind_of(block) is not Block or any(hooks_on(block)):
            if packing is not None:
                raise ValueError(f"a {type(block).__name__} as it stands can't run on packed samples")
            return block(x)[:, read]
    assert isinstance(block, Block)
    first, second = scales or (None, None)
    mixed = block.drop_path1(block.ls1(self_attention(block.attn, block.norm1(x), packing)))
    x = (x + _weigh(mixed, first, packing))[:, read]
    return x + _weigh(block.drop_path2(block.ls2(block.mlp(block.norm2(x)))), second, packing)


def can_pack(block: nn.Module) -> bool:
    """Whether `run_block` can run packed samples through it, unless hooks are added."""
    return type(block) is Block and attends_by_parts(block.attn)


def _weigh(branch: Tensor, scale: Tensor | None, packing: Packing | None) -> Tensor:
    """A residual branch times its samples' factors (b, 1, 1)."""
    if scale is None:
        return branch
    scale = scale.to(branch.dtype)
    return (scale if packing is None else scale[packing.sample, 0]) * branch


def run_blocks(
    blocks: Iterable[nn.Module],
    x: Float[Tensor, "b ..."],
    scales: Sequence[Scales],
    *,
    recompute: bool,
    run: BlockRunner = run_block,
) -> Float[Tensor, "b ..."]:
    """All blocks in order; `recompute` trades a second forward for not storing their activations.

    `run` applies one block to tokens under its scales.
    """
    for block, scale in zip(blocks, scales, strict=True):
        if recompute and torch.is_grad_enabled():
            x = checkpoint(inside, block, run, x, scale, use_reentrant=False)
        else:
            x = inside(block, run, x, scale)
    return x
