"""Masked attention with one dense map per sample: the reference, and torch's own fused attention."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from maskpre.ops.attention_layout import Layout
from maskpre.ops.attention_padding import Padding


class _Batch(NamedTuple):
    """All samples at one length, and how they came to it where their lengths differ."""

    q: Float[Tensor, "b h nq d"]
    k: Float[Tensor, "b h nk d"]
    v: Float[Tensor, "b h nk d"]
    of_q: Padding | None
    of_k: Padding | None

    @classmethod
    def of(cls, tokens: tuple[Tensor, ...], layout: Layout) -> "_Batch":
        """From q, k and v, or from their packed form alone."""
        of_q = of_k = None
        first, last = tokens[0], tokens[-1]
        if layout.cu_q is not None and layout.cu_k is not None:
            of_q = of_k = Padding.of(layout.cu_q, longest=layout.max_q, num_tokens=len(first))
            if layout.cu_k is not layout.cu_q or layout.max_k != layout.max_q:
                of_k = Padding.of(layout.cu_k, longest=layout.max_k, num_tokens=len(last))
        if len(tokens) == 1:
            packed = first if first.dim() == 5 else _batched(first, of_q, layout.num_samples, layout.max_q)
            q, k, v = packed.unbind(2)
        elif first.dim() == 4:
            q, k, v = tokens
        else:
            q = _batched(tokens[0], of_q, layout.num_samples, layout.max_q)
            k, v = (_batched(x, of_k, layout.num_samples, layout.max_k) for x in tokens[1:])
        return cls(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), of_q, of_k)

    def as_given(self, values: Float[Tensor, "b h n ..."], *, packed: bool) -> Float[Tensor, "..."]:
        """Something of every query as (t, h, ...) where tokens were packed, otherwise as (b, n, h, ...)."""
        values = values.transpose(1, 2)
        if not packed:
            return values
        return values.flatten(0, 1) if self.of_q is None else self.of_q.pack(values)


def _packed(tokens: tuple[Tensor, ...]) -> bool:
    return tokens[0].dim() == (4 if len(tokens) == 1 else 3)


def _batched(values: Tensor, padding: Padding | None, num_samples: int, longest: int) -> Tensor:
    """One entry per token, (t, ...), as (b, n, ...)."""
    return values.unflatten(0, (num_samples, longest)) if padding is None else padding.pad(values)


def _allowed_pairs(layout: Layout, batch: _Batch) -> Bool[Tensor, "b 1 #nq nk"] | None:
    """Which query may attend to which key; None if all may."""
    allowed = None
    if batch.of_k is not None:
        allowed = batch.of_k.there.inside.view(layout.num_samples, 1, 1, layout.max_k)
    if layout.group_q is not None and layout.group_k is not None:
        of_q = _batched(layout.group_q, batch.of_q, layout.num_samples, layout.max_q)
        of_k = _batched(layout.group_k, batch.of_k, layout.num_samples, layout.max_k)
        # Negative groups are made unequal here, where there is one per token, not one per pair.
        of_q, of_k = of_q.clamp(min=-1), torch.where(of_k < 0, -2, of_k)
        same = of_q[:, None, :, None] == of_k[:, None, None, :]
        allowed = same if allowed is None else allowed & same
    return allowed


def _codes(code: Tensor, padding: Padding | None, num_samples: int, longest: int) -> Int32[Tensor, "#b n"]:
    """Codes per place or per token; as many as both are one per token."""
    per_token = padding is not None and len(code) == len(padding.back.source)
    return (
        code[None]
        if len(code) == longest and not per_token
        else _batched(code, padding, num_samples, longest)
    )


def _bias_rows(layout: Layout, batch: _Batch) -> Int32[Tensor, "#b nq nk"]:
    """The row of the table for every pair."""
    assert layout.code_q is not None
    assert layout.code_k is not None
    assert layout.table is not None
    of_q = _codes(layout.code_q, batch.of_q, layout.num_samples, layout.max_q)[:, :, None]
    of_k = _codes(layout.code_k, batch.of_k, layout.num_samples, layout.max_k)[:, None, :]
    num_rows, asked = layout.table.shape[1], of_k < 0
    # The class token has no place: its three kinds of pairs have rows of their own at the end.
    rows = torch.where(asked, num_rows - 2, of_q + layout.code_offset - of_k)
    return torch.where(of_q < 0, torch.where(asked, num_rows - 1, num_rows - 3).int(), rows)


def _dense_bias(layout: Layout, batch: _Batch) -> Float[Tensor, "#b h nq nk"] | None:
    """The bias of every pair, or None without a table."""
    if layout.table is None:
        return None
    rows = _bias_rows(layout, batch)
    return layout.table.index_select(1, rows.flatten()).unflatten(1, rows.shape).transpose(0, 1)


def by_sdpa(tokens: tuple[Tensor, ...], layout: Layout) -> Tensor:
    """What torch's scaled_dot_product_attention makes of it; masks and biases are written out per pair.

    `tokens` are q, k and v, or their packed form alone.
    """
    batch = _Batch.of(tokens, layout)
    mask = None
    if not layout.plain:
        mask, bias = _allowed_pairs(layout, batch), _dense_bias(layout, batch)
        if bias is not None:
            bias = bias.to(batch.q.dtype)
            # Adding needs no pass over the gradient, as blanking would; a pair of no weight has none.
            mask = bias if mask is None else bias + torch.where(mask, bias.new_zeros(()), -torch.inf)
    out = scaled_dot_product_attention(batch.q, batch.k, batch.v, attn_mask=mask, scale=layout.scale)
    return batch.as_given(out, packed=_packed(tokens))


def by_definition(tokens: tuple[Tensor, ...], layout: Layout) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (h, t) by the definition: float32 inside, float64 for float64 tokens."""
    batch = _Batch.of(tokens, layout)
    inner = torch.float64 if batch.q.dtype == torch.float64 else torch.float32
    scores = batch.q.to(inner) @ batch.k.to(inner).transpose(2, 3) * layout.scale
    bias, allowed = _dense_bias(layout, batch), _allowed_pairs(layout, batch)
    scores = scores if bias is None else scores + bias
    scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
    # A row without any key has no maximum and no sum; it yields zeros and no gradient.
    top = scores.detach().amax(dim=-1, keepdim=True) if layout.max_k else scores.new_zeros(())
    shares = (scores - torch.where(top == -torch.inf, 0, top)).exp()
    total = shares.sum(dim=-1, keepdim=True)
    out = (shares / torch.where(total == 0, 1, total)) @ batch.v.to(inner)
    lse = batch.as_given((total.detach().log() + top)[..., 0], packed=True)
    return batch.as_given(out, packed=_packed(tokens)).to(batch.q.dtype), lse.t()
