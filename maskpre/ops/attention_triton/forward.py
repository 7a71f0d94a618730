"""Forward kernels: one tile for short samples, online softmax over tiles of keys for longer ones.

Both write the output and, per query, the natural logarithm of the softmax's denominator. A query that sees
no key gets 0 and -inf. Programs are numbered with heads fastest, so that the heads of a sample, whose
tokens lie side by side in memory, run together.
"""

import triton
import triton.language as tl

from maskpre.ops.attention_triton.scores import (
    finish_scores,
    finish_softmax,
    head_and_rest,
    inner,
    load_head,
    load_ids,
    span,
    store_head,
)


@triton.jit
def forward_tile(
    q, k, v, out, lse,
    cu_q, cu_k, group_q, group_k, table, code_q, code_k,
    q_stride, q_head, k_stride, k_head, v_stride, v_head,
    num_heads, max_q, max_k, total_q, code_offset, num_rows,
    SHARED_Q: tl.constexpr, SHARED_K: tl.constexpr, SCALE: tl.constexpr,
    D: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """All of one sample and head: max_q <= BLOCK_Q and max_k <= BLOCK_K."""
    head, sample = head_and_rest(num_heads)
    first_q, len_q = span(cu_q, sample, max_q)
    first_k, len_k = span(cu_k, sample, max_k)
    rows, cols = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    in_q, in_k = rows < len_q, cols < len_k
    query, query_tail = load_head(
        q + first_q * q_stride + head * q_head, rows, q_stride, in_q, D, MAIN, TAIL, UP
    )
    key, key_tail = load_head(k + first_k * k_stride + head * k_head, cols, k_stride, in_k, D, MAIN, TAIL, UP)
    value, value_tail = load_head(
        v + first_k * v_stride + head * v_head, cols, v_stride, in_k, D, MAIN, TAIL, UP
    )
    own_q = load_ids(code_q, 0 if SHARED_Q else first_q, rows, in_q, 0)
    own_k = load_ids(code_k, 0 if SHARED_K else first_k, cols, in_k, 0)
    ids_q = load_ids(group_q, first_q, rows, in_q, -1)
    ids_k = load_ids(group_k, first_k, cols, in_k, -1)
    scores = finish_scores(
        inner(query, query_tail, key, key_tail, TAIL),
        in_q[:, None] & in_k[None, :],
        table, head, own_q[:, None], own_k[None, :], code_offset, num_rows,
        group_q, ids_q[:, None], ids_k[None, :], SCALE,
    )  # fmt: skip
    top = tl.max(scores, 1)
    top = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(scores - top[:, None])
    denominator, share = finish_softmax(top, tl.sum(weights, 1))
    weights = weights.to(value.dtype)
    main = tl.dot(weights, value, input_precision="ieee") * share[:, None]
    tail = main
    if TAIL > 0:
        tail = tl.dot(weights, value_tail, input_precision="ieee") * share[:, None]
    stride = num_heads * D
    store_head(out + first_q * stride + head * D, main, tail, rows, stride, in_q, D, MAIN, TAIL)
    tl.store(lse + head * total_q + first_q + rows, denominator, mask=in_q)


@triton.jit
def forward_loop(
    q, k, v, out, lse,
    cu_q, cu_k, group_q, group_k, table, code_q, code_k,
    q_stride, q_head, k_stride, k_head, v_stride, v_head,
    num_heads, max_q, max_k, total_q, code_offset, num_rows,
    SHARED_Q: tl.constexpr, SHARED_K: tl.constexpr, SCALE: tl.constexpr,
    D: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """BLOCK_Q queries of one sample and head against all keys, BLOCK_K at a time."""
    head, rest = head_and_rest(num_heads)
    num_tiles = tl.cdiv(max_q, BLOCK_Q)
    sample = rest // num_tiles
    first_q, len_q = span(cu_q, sample, max_q)
    if (rest % num_tiles) * BLOCK_Q >= len_q:
        return
    first_k, len_k = span(cu_k, sample, max_k)
    rows = (rest % num_tiles) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    in_q = rows < len_q
    query, query_tail = load_head(
        q + first_q * q_stride + head * q_head, rows, q_stride, in_q, D, MAIN, TAIL, UP
    )
    k += first_k * k_stride + head * k_head
    v += first_k * v_stride + head * v_head
    own_q = load_ids(code_q, 0 if SHARED_Q else first_q, rows, in_q, 0)
    ids_q = load_ids(group_q, first_q, rows, in_q, -1)
    wide = lse.dtype.element_ty
    top = tl.full([BLOCK_Q], float("-inf"), wide)
    total = tl.full([BLOCK_Q], 0.0, wide)
    main = tl.full([BLOCK_Q, MAIN], 0.0, wide)
    tail = main
    if TAIL > 0:
        tail = tl.full([BLOCK_Q, TAIL], 0.0, wide)
    for start in range(0, len_k, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        in_k = cols < len_k
        key, key_tail = load_head(k, cols, k_stride, in_k, D, MAIN, TAIL, UP)
        own_k = load_ids(code_k, 0 if SHARED_K else first_k, cols, in_k, 0)
        ids_k = load_ids(group_k, first_k, cols, in_k, -1)
        scores = finish_scores(
            inner(query, query_tail, key, key_tail, TAIL),
            in_q[:, None] & in_k[None, :],
            table, head, own_q[:, None], own_k[None, :], code_offset, num_rows,
            group_q, ids_q[:, None], ids_k[None, :], SCALE,
        )  # fmt: skip
        old, top = top, tl.maximum(top, tl.max(scores, 1))
        finite = tl.where(top == float("-inf"), 0.0, top)
        shrink = tl.exp2(old - finite)
        weights = tl.exp2(scores - finite[:, None])
        total = total * shrink + tl.sum(weights, 1)
        value, value_tail = load_head(v, cols, v_stride, in_k, D, MAIN, TAIL, UP)
        weights = weights.to(value.dtype)
        main = tl.dot(weights, value, main * shrink[:, None], input_precision="ieee")
        if TAIL > 0:
            tail = tl.dot(weights, value_tail, tail * shrink[:, None], input_precision="ieee")
    denominator, share = finish_softmax(tl.where(top == float("-inf"), 0.0, top), total)
    main = main * share[:, None]
    if TAIL > 0:
        tail = tail * share[:, None]
    stride = num_heads * D
    store_head(out + first_q * stride + head * D, main, tail, rows, stride, in_q, D, MAIN, TAIL)
    tl.store(lse + head * total_q + first_q + rows, denominator, mask=in_q)
