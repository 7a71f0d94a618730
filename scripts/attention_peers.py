"""Torch's own ways to the attention that `benchmark_attention.py` times."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

Peer = Callable[[Any], Tensor]
PINNED = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def _rows(problem: Any) -> Tensor:
    """The row of the bias table of every pair, (n, n) or (b, n, n)."""
    code, shape = problem.options["code"], problem.shape
    code = code.unflatten(0, (shape.batch, shape.tokens)) if shape.visible else code
    of_q, of_k = code[..., :, None].long(), code[..., None, :].long()
    num_rows = problem.options["bias_table"].shape[1]
    rows = of_q - of_k + problem.options["code_offset"]
    rows = torch.where(of_q < 0, num_rows - 3, torch.where(of_k < 0, num_rows - 2, rows))
    return torch.where((of_q < 0) & (of_k < 0), num_rows - 1, rows)


class Dense:
    """What a careful user prepares once: indices, and masks per pair; biases are looked up in every call."""

    def __init__(self, problem: Any) -> None:
        shape, options = problem.shape, problem.options
        self.rows = None if shape.grid is None else _rows(problem)
        self.allowed: Tensor | None = None
        self.inside: Tensor | None = None
        if shape.regions:
            group = options["group"].unflatten(0, (shape.batch, shape.tokens))
            self.allowed = (group[:, :, None] == group[:, None, :])[:, None]
        if shape.shortest is not None:
            places = torch.arange(shape.tokens, device=problem.gradient.device)
            self.inside = places < options["cu"].diff()[:, None]
            self.allowed = self.inside[:, None, None, :]

    def mask(self, problem: Any) -> Tensor | None:
        """What is added to the scores or selects them."""
        if self.rows is None:
            return self.allowed
        bias = problem.options["bias_table"][:, self.rows]
        bias = bias.transpose(0, 1) if problem.shape.visible else bias
        bias = bias.to(problem.gradient.dtype)
        return bias if self.allowed is None else bias.masked_fill(~self.allowed, -torch.inf)


def by_hand(dense: Callable[[Any], Dense]) -> Peer:
    """A call of scaled_dot_product_attention as one would write it down."""

    def attend(problem: Any) -> Tensor:
        prepared, shape = dense(problem), problem.shape
        inside = prepared.inside
        if inside is None:
            parts = [x.unflatten(0, (shape.batch, -1)) for x in problem.projections]
        else:
            padded = problem.projections[0].new_zeros(
                shape.batch, shape.tokens, *problem.projections[0].shape[1:]
            )
            parts = [padded.index_put((inside,), problem.projections[0])]
        q, k, v = (part.transpose(1, 2) for x in parts for part in x.unbind(2))
        out = scaled_dot_product_attention(q, k, v, attn_mask=prepared.mask(problem)).transpose(1, 2)
        return out.flatten(0, 1) if inside is None else out[inside]

    return attend


def pinned(call: Peer, backend: SDPBackend) -> Peer:
    """The same with one of torch's implementations only."""

    def attend(problem: Any) -> Tensor:
        with sdpa_kernel(backend):
            return call(problem)

    return attend


def flex(dense: Callable[[Any], Dense]) -> Peer:
    """FlexAttention, compiled; block masks are made with the problem's other preparations."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)

    @cache
    def block_mask(key: int, total: int) -> Any:
        sample = samples[key]
        return create_block_mask(
            lambda b, h, i, j: sample[i] == sample[j], None, None, total, total, device="cuda"
        )

    samples: dict[int, Tensor] = {}

    def attend(problem: Any) -> Tensor:
        shape, prepared = problem.shape, dense(problem)
        if prepared.inside is not None:
            total = len(problem.gradient)
            key = id(problem)
            samples.setdefault(key, prepared.inside.nonzero()[:, 0])
            q, k, v = (x.transpose(0, 1)[None] for x in problem.projections[0].unbind(1))
            return compiled(q, k, v, block_mask=block_mask(key, total))[0].transpose(0, 1)
        parts = [x.unflatten(0, (shape.batch, -1)) for x in problem.projections]
        q, k, v = (part.transpose(1, 2) for x in parts for part in x.unbind(2))
        return compiled(q, k, v, score_mod=_score(problem, prepared)).transpose(1, 2).flatten(0, 1)

    return attend


def _score(problem: Any, prepared: Dense) -> Any:
    if prepared.rows is None:
        return None
    table, rows, allowed = problem.options["bias_table"], prepared.rows, prepared.allowed
    visible = problem.shape.visible

    def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        value = value + table[h, rows[b, i, j] if visible else rows[i, j]]
        return value if allowed is None else torch.where(allowed[b, 0, i, j], value, -float("inf"))

    return score


def varlen(problem: Any) -> Tensor:
    """Torch's attention over packed samples of varying lengths."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = problem.projections[0].unbind(1)
    cu, longest = problem.options["cu"], problem.shape.tokens
    return varlen_attn(q, k, v, cu, cu, longest, longest)


def peers_of(problem: Any) -> dict[str, Peer]:
    """Whoever may take the shape on this device; some refuse it when called."""
    made: dict[int, Dense] = {}

    def dense(given: Any) -> Dense:
        if id(given) not in made:
            made[id(given)] = Dense(given)
        return made[id(given)]

    hand = by_hand(dense)
    if problem.gradient.device.type == "cpu":
        return {"sdpa by hand": hand}
    found = {name: pinned(hand, backend) for name, backend in PINNED.items()}
    found = {"automatic": hand, **found, "flex": flex(dense)}
    return {**found, "varlen": varlen} if problem.shape.shortest is not None else found
