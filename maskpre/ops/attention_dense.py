"""Masked attention with one dense map per sample: the reference, and torch's own fused attention."""

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from maskpre.ops.attention_layout import Layout


def _slots(cu: Int32[Tensor, "s"], longest: int, num_tokens: int) -> Int32[Tensor, "b n"]:
    """Which packed token stands at every place of every sample; beyond a sample's end, any other."""
    places = torch.arange(longest, dtype=cu.dtype, device=cu.device)
    return (cu[:-1, None] + places).clamp(max=num_tokens - 1)


def _batched(tokens: Tensor, cu: Tensor | None, num_samples: int, longest: int) -> Tensor:
    """Packed tokens (t, ...) as (b, n, ...); batched ones as they are."""
    if cu is None:
        return tokens.unflatten(0, (num_samples, longest))
    if len(tokens) == 0:
        return tokens.new_zeros(num_samples, longest, *tokens.shape[1:])
    return tokens[_slots(cu, longest, len(tokens))]


def _packed(padded: Float[Tensor, "b n ..."], cu: Int32[Tensor, "s"], num_tokens: int) -> Tensor:
    """The inverse of `_batched`; tokens of no sample become 0."""
    tokens = torch.arange(num_tokens, dtype=cu.dtype, device=cu.device)
    sample = torch.bucketize(tokens, cu[1:], right=True)
    inside = sample < len(padded)
    sample = sample.clamp(max=len(padded) - 1)
    values = padded[sample, (tokens - cu[sample]).clamp(max=padded.shape[1] - 1)]
    return torch.where(inside.reshape(-1, *[1] * (values.dim() - 1)), values, 0)


def allowed_pairs(layout: Layout) -> Bool[Tensor, "b 1 nq nk"] | None:
    """Which query may attend to which key; None if all may."""
    allowed = None
    if layout.cu_k is not None:
        places = torch.arange(layout.max_k, dtype=torch.int32, device=layout.cu_k.device)
        allowed = (places < layout.cu_k.diff()[:, None])[:, None, None, :]
    if layout.group_q is not None and layout.group_k is not None:
        of_q = _batched(layout.group_q, layout.cu_q, layout.num_samples, layout.max_q)[:, None, :, None]
        of_k = _batched(layout.group_k, layout.cu_k, layout.num_samples, layout.max_k)[:, None, None, :]
        same = (of_q == of_k) & (of_k >= 0)
        allowed = same if allowed is None else allowed & same
    return allowed


def _codes(
    code: Tensor, cu: Tensor | None, num_samples: int, longest: int, num_tokens: int
) -> Int32[Tensor, "#b n"]:
    """Codes per place or per token; as many as both are one per token."""
    if len(code) == longest and (cu is None or len(code) != num_tokens):
        return code[None]
    return _batched(code, cu, num_samples, longest)


def bias_rows(layout: Layout, num_q: int, num_k: int) -> Int32[Tensor, "#b nq nk"]:
    """The row of the table for every pair; there are `num_q` queries and `num_k` keys in all samples."""
    assert layout.code_q is not None
    assert layout.code_k is not None
    assert layout.table is not None
    of_q = _codes(layout.code_q, layout.cu_q, layout.num_samples, layout.max_q, num_q)[:, :, None]
    of_k = _codes(layout.code_k, layout.cu_k, layout.num_samples, layout.max_k, num_k)[:, None, :]
    num_rows = layout.table.shape[1]
    rows = of_q - of_k + layout.code_offset
    # The class token has no place: its three kinds of pairs have rows of their own at the end.
    rows = torch.where(of_q < 0, num_rows - 3, torch.where(of_k < 0, num_rows - 2, rows))
    return torch.where((of_q < 0) & (of_k < 0), num_rows - 1, rows)


def dense_bias(layout: Layout, q: Tensor, k: Tensor) -> Float[Tensor, "#b h nq nk"] | None:
    """The bias of every pair, or None without a table."""
    if layout.table is None:
        return None
    rows = bias_rows(layout, q.shape[:-2].numel(), k.shape[:-2].numel())
    picked = layout.table.index_select(1, rows.flatten())
    return picked.unflatten(1, rows.shape).transpose(0, 1)


def _as_batch(tokens: Tensor, cu: Tensor | None, num_samples: int, longest: int) -> Tensor:
    batch = tokens if tokens.dim() == 4 else _batched(tokens, cu, num_samples, longest)
    return batch.transpose(1, 2)


def _as_given(out: Float[Tensor, "b h n d"], q: Tensor, layout: Layout) -> Tensor:
    out = out.transpose(1, 2)
    if q.dim() == 4:
        return out
    return out.flatten(0, 1) if layout.cu_q is None else _packed(out, layout.cu_q, len(q))


def by_sdpa(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """What torch's scaled_dot_product_attention makes of it; masks and biases are written out per pair."""
    query = _as_batch(q, layout.cu_q, layout.num_samples, layout.max_q)
    key, value = (_as_batch(x, layout.cu_k, layout.num_samples, layout.max_k) for x in (k, v))
    mask = None
    if not layout.plain:
        allowed, bias = allowed_pairs(layout), dense_bias(layout, q, k)
        bias = None if bias is None else bias.to(q.dtype)
        mask = (
            allowed if bias is None else bias if allowed is None else bias.masked_fill(~allowed, -torch.inf)
        )
    out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=layout.scale)
    return _as_given(out, q, layout)


def by_definition(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp by the definition: float32 inside, float64 for float64 tokens."""
    inner = torch.float64 if q.dtype == torch.float64 else torch.float32
    query = _as_batch(q, layout.cu_q, layout.num_samples, layout.max_q).to(inner)
    key, value = (_as_batch(x, layout.cu_k, layout.num_samples, layout.max_k).to(inner) for x in (k, v))
    scores = query @ key.transpose(2, 3) * layout.scale
    bias, allowed = dense_bias(layout, q, k), allowed_pairs(layout)
    scores = scores if bias is None else scores + bias
    scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
    # A row without any key has no maximum and no sum; it yields zeros and no gradient.
    top = scores.detach().amax(dim=-1, keepdim=True) if layout.max_k else scores.new_zeros(())
    shares = (scores - torch.where(top == -torch.inf, 0, top)).exp()
    total = shares.sum(dim=-1, keepdim=True)
    out = (shares / torch.where(total == 0, 1, total)) @ value
    lse = (total.detach().log() + top)[..., 0].transpose(1, 2)
    lse = lse.flatten(0, 1) if layout.cu_q is None else _packed(lse, layout.cu_q, len(q))
    return _as_given(out, q, layout).to(q.dtype), lse.t()
