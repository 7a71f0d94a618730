"""Attention for every encoder and predictor: masks by groups and lengths, biases by position, one entry.

Three implementations stand behind it: fused Triton kernels on a GPU, torch's scaled_dot_product_attention,
and the definition written out. No mask and no bias is ever stored per pair on the way through the kernels.
"""

from typing import Literal, TypedDict, Unpack, overload

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from maskpre.ops import attention_op
from maskpre.ops.attention_choice import Backend, choose_backend, compute_dtype, runs_triton
from maskpre.ops.attention_dense import by_definition, by_sdpa
from maskpre.ops.attention_layout import Layout, arrange, arrange_plain, check_tokens


class Options(TypedDict, total=False):
    """What `masked_attention` takes beside tokens, for type checkers."""

    cu_q: Tensor | None
    cu_k: Tensor | None
    max_q: int | None
    max_k: int | None
    group_q: Tensor | None
    group_k: Tensor | None
    bias_table: Tensor | None
    code_q: Tensor | None
    code_k: Tensor | None
    code_offset: int
    scale: float | None
    backend: Backend


def _attend(
    tokens: tuple[Tensor, ...], layout: Layout, backend: Backend, *, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Run the implementation. `tokens` are q, k and v, or their packed form alone."""
    first = tokens[0]
    dtype = compute_dtype(first)
    if dtype != first.dtype:
        tokens = tuple(x.to(dtype) for x in tokens)
    chosen = choose_backend(
        backend,
        device=first.device,
        dtype=dtype,
        head_dim=first.shape[-1],
        longest=layout.max_k,
        plain=layout.plain,
        lse=return_lse,
    )
    if chosen == "triton":
        return _by_kernel(tokens, layout)
    if chosen == "sdpa":
        if return_lse:
            raise ValueError("backend 'sdpa' gives no log-sum-exp; use 'triton' or 'reference'")
        return by_sdpa(tokens, layout), None
    with torch.autocast(first.device.type, enabled=False):
        return by_definition(tokens, layout)


def _by_kernel(tokens: tuple[Tensor, ...], layout: Layout) -> tuple[Tensor, Tensor]:
    first = tokens[0]
    if not runs_triton(first.device):
        raise ValueError(
            f"backend 'triton' runs on a GPU, or on a CPU under TRITON_INTERPRET=1; the tokens are on "
            f"{first.device}. Use 'auto', 'sdpa' or 'reference'"
        )
    batched = first.dim() == (5 if len(tokens) == 1 else 4)
    flat = [x.flatten(0, 1) for x in tokens] if batched else tokens
    operator = torch.ops.maskpre.attention_qkv if len(tokens) == 1 else torch.ops.maskpre.attention
    out, lse = operator(*flat, *attention_op.options(layout))
    return (out.unflatten(0, first.shape[:2]) if batched else out), lse


@overload
def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[False] = False, **options: Unpack[Options]
) -> Tensor: ...


@overload
def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[True], **options: Unpack[Options]
) -> tuple[Tensor, Tensor]: ...


def masked_attention(
    q: Float[Tensor, "*bq h d"],
    k: Float[Tensor, "*bk h d"],
    v: Float[Tensor, "*bk h d"],
    *,
    cu_q: Int32[Tensor, "s"] | None = None,
    cu_k: Int32[Tensor, "s"] | None = None,
    max_q: int | None = None,
    max_k: int | None = None,
    group_q: Int32[Tensor, "..."] | None = None,
    group_k: Int32[Tensor, "..."] | None = None,
    bias_table: Float[Tensor, "h r"] | None = None,
    code_q: Int32[Tensor, "..."] | None = None,
    code_k: Int32[Tensor, "..."] | None = None,
    code_offset: int = 0,
    scale: float | None = None,
    return_lse: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale * q k^T + bias) v within every sample, over the keys a query may see.

    Tokens are batched (b, n, h, d), or packed (t, h, d): then `cu_q` and `cu_k` say where samples begin
    (b + 1 entries, from 0 to t) and `max_q` and `max_k` bound their lengths; without `cu_*` all samples have
    exactly `max_*` tokens. A query sees a key if their groups are equal and not negative (one entry per
    token, (b, n) or (t,)). `bias_table` has a row r = code_q - code_k + code_offset for every pair; codes are
    one per token, or else one per place in a sample and the same in all. A negative code is a class token,
    whose pairs have the last rows: R - 3 (it asks), R - 2 (it is asked), R - 1 (both). The table stays
    float32. `scale` is 1 / sqrt(d) by default.

    Queries that see no key give 0 and no gradient. With `return_lse` also the log of the softmax's
    denominator, (h, t) in float32 (-inf for those queries), which carries no gradient. `backend` forces an
    implementation; forcing "sdpa" or "reference" may store masks and biases per pair. The kernels have no
    second derivative, and want codes that differ between samples to be those of a grid, once in a sample.

    Raises ValueError naming the sizes if arguments don't fit. Values of codes, groups and lengths are on the
    device and are not checked.
    """
    check_tokens(q, k, v)
    if cu_q is cu_k is group_q is group_k is code_q is code_k is bias_table is None:
        layout = arrange_plain(q.shape, k.shape, (max_q, max_k), scale)
    else:
        layout = arrange(
            q,
            k,
            cu=(cu_q, cu_k),
            longest=(max_q, max_k),
            group=(group_q, group_k),
            code=(code_q, code_k),
            table=bias_table,
            code_offset=code_offset,
            scale=scale,
        )
    out, lse = _attend((q, k, v), layout, backend, return_lse=return_lse)
    if not return_lse:
        return out
    assert lse is not None
    return out, lse


def masked_attention_qkv(
    qkv: Float[Tensor, "*b 3 h d"],
    *,
    cu: Int32[Tensor, "s"] | None = None,
    max_n: int | None = None,
    group: Int32[Tensor, "..."] | None = None,
    bias_table: Float[Tensor, "h r"] | None = None,
    code: Int32[Tensor, "..."] | None = None,
    code_offset: int = 0,
    scale: float | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "*b h d"]:
    """`masked_attention` of tokens among themselves, from (b, n, 3, h, d) or packed (t, 3, h, d).

    The kernels' backward pass writes one gradient of that form: no copy puts three together.
    """
    if qkv.dim() not in (4, 5) or qkv.shape[-3] != 3 or not qkv.is_floating_point():
        raise ValueError(
            f"qkv must be (b, n, 3, h, d) or (t, 3, h, d) of a floating type, got {tuple(qkv.shape)} of "
            f"{qkv.dtype}"
        )
    if cu is group is code is bias_table is None:
        shape = (*qkv.shape[:-3], *qkv.shape[-2:])
        layout = arrange_plain(shape, shape, (max_n, max_n), scale)
    else:
        tokens = qkv.select(-3, 0)
        layout = arrange(
            tokens,
            tokens,
            cu=(cu, cu),
            longest=(max_n, max_n),
            group=(group, group),
            code=(code, code),
            table=bias_table,
            code_offset=code_offset,
            scale=scale,
        )
    return _attend((qkv,), layout, backend, return_lse=False)[0]
