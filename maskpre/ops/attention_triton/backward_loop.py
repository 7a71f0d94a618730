"""Backward kernels of longer samples: one for the queries' gradient, then one for the keys' and values'."""

import triton
import triton.language as tl

from maskpre.ops.attention_triton.scores import (
    add_to,
    finish_scores,
    head_and_rest,
    inner,
    load_head,
    load_ids,
    load_lse,
    row_products,
    span,
    store_head,
)


@triton.jit
def backward_queries(
    q, k, v, out, lse, grad_out, delta, dq, partial,
    cu_q, cu_k, group_q, group_k, table, code_q, code_k,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, grad_stride, grad_head, dq_stride, dq_head,
    num_heads, max_q, max_k, total_q, code_offset, num_rows,
    num_samples, samples_each, places_q, places_k,
    SHARED_Q: tl.constexpr, SHARED_K: tl.constexpr, SCALE: tl.constexpr,
    D: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """BLOCK_Q queries of one head in `samples_each` samples, one after the other, against all their keys.

    `delta` (H, queries) receives the products of output and its gradient, which the keys' kernel reads.
    `partial` is as in `backward_tile`, but always starts as zeros.
    """
    head, rest = head_and_rest(num_heads)
    num_tiles = tl.cdiv(max_q, BLOCK_Q)
    part = rest // num_tiles
    start_q = (rest % num_tiles) * BLOCK_Q
    wide: tl.constexpr = lse.dtype.element_ty
    corner = (part * num_heads + head) * places_q * places_k
    stride = num_heads * D
    first = part * samples_each
    for number in range(1 if partial is None else tl.minimum(samples_each, num_samples - first)):
        sample = first + number
        # Offsets must seem to depend on the sample: kept for all of them, they would fill the registers.
        zero = tl.minimum(sample, 0)
        rows = start_q + zero + tl.arange(0, BLOCK_Q)
        first_q, len_q = span(cu_q, sample, max_q)
        first_k, len_k = span(cu_k, sample, max_k)
        in_q = rows < len_q
        query, query_tail = load_head(
            q + first_q * q_stride + head * q_head, rows, q_stride, in_q, D, MAIN, TAIL, UP
        )
        grad, grad_tail = load_head(
            grad_out + first_q * grad_stride + head * grad_head, rows, grad_stride, in_q, D, MAIN, TAIL, UP
        )
        made, made_tail = load_head(out + first_q * stride + head * D, rows, stride, in_q, D, MAIN, TAIL, UP)
        own_delta = row_products(made, made_tail, grad, grad_tail, wide, TAIL)
        tl.store(delta + head * total_q + first_q + rows, own_delta, mask=in_q)
        own_lse = load_lse(lse + head * total_q + first_q, rows, in_q)
        own_q = load_ids(code_q, 0 if SHARED_Q else first_q, rows, in_q, 0)
        ids_q = load_ids(group_q, first_q, rows, in_q, -1)
        main = tl.full([BLOCK_Q, MAIN], 0.0, wide)
        tail = main
        if TAIL > 0:
            tail = tl.full([BLOCK_Q, TAIL], 0.0, wide)
        for start_k in range(0, tl.where(start_q < len_q, len_k, 0), BLOCK_K):
            cols = start_k + zero + tl.arange(0, BLOCK_K)
            in_k = cols < len_k
            key, key_tail = load_head(
                k + first_k * k_stride + head * k_head, cols, k_stride, in_k, D, MAIN, TAIL, UP
            )
            own_k = load_ids(code_k, 0 if SHARED_K else first_k, cols, in_k, 0)
            ids_k = load_ids(group_k, first_k, cols, in_k, -1)
            scores = finish_scores(
                inner(query, query_tail, key, key_tail, TAIL), in_q[:, None] & in_k[None, :],
                table, head, own_q[:, None], own_k[None, :], code_offset, num_rows,
                group_q, ids_q[:, None], ids_k[None, :], SCALE,
            )  # fmt: skip
            value, value_tail = load_head(
                v + first_k * v_stride + head * v_head, cols, v_stride, in_k, D, MAIN, TAIL, UP
            )
            weights = tl.exp2(scores - own_lse[:, None])
            d_scores = weights * (inner(grad, grad_tail, value, value_tail, TAIL) - own_delta[:, None])
            if partial is not None:
                if SHARED_Q and SHARED_K:
                    place_q, place_k = rows, cols
                else:
                    place_q, place_k = own_q + 1, own_k + 1
                known = ((place_q < places_q) & in_q)[:, None] & ((place_k < places_k) & in_k)[None, :]
                add_to(partial + corner + place_q[:, None] * places_k + place_k[None, :], d_scores, known)
            d_scores = d_scores.to(key.dtype)
            main = tl.dot(d_scores, key, main, input_precision="ieee")
            if TAIL > 0:
                tail = tl.dot(d_scores, key_tail, tail, input_precision="ieee")
        main = main * SCALE
        if TAIL > 0:
            tail = tail * SCALE
        store_head(
            dq + first_q * dq_stride + head * dq_head, main, tail, rows, dq_stride, in_q, D, MAIN, TAIL
        )
        if partial is not None:
            tl.debug_barrier()


@triton.jit
def backward_keys(
    q, k, v, lse, grad_out, delta, dk, dv,
    cu_q, cu_k, group_q, group_k, table, code_q, code_k,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, grad_stride, grad_head,
    dk_stride, dk_head, dv_stride, dv_head,
    num_heads, max_q, max_k, total_q, code_offset, num_rows,
    SHARED_Q: tl.constexpr, SHARED_K: tl.constexpr, SCALE: tl.constexpr,
    D: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """BLOCK_K keys of one sample and head against all queries; tiles are (keys, queries)."""
    head, rest = head_and_rest(num_heads)
    num_tiles = tl.cdiv(max_k, BLOCK_K)
    sample = rest // num_tiles
    first_k, len_k = span(cu_k, sample, max_k)
    if (rest % num_tiles) * BLOCK_K >= len_k:
        return
    first_q, len_q = span(cu_q, sample, max_q)
    cols = (rest % num_tiles) * BLOCK_K + tl.arange(0, BLOCK_K)
    in_k = cols < len_k
    key, key_tail = load_head(k + first_k * k_stride + head * k_head, cols, k_stride, in_k, D, MAIN, TAIL, UP)
    value, value_tail = load_head(
        v + first_k * v_stride + head * v_head, cols, v_stride, in_k, D, MAIN, TAIL, UP
    )
    own_k = load_ids(code_k, 0 if SHARED_K else first_k, cols, in_k, 0)
    ids_k = load_ids(group_k, first_k, cols, in_k, -1)
    wide: tl.constexpr = lse.dtype.element_ty
    key_main = tl.full([BLOCK_K, MAIN], 0.0, wide)
    value_main = tl.full([BLOCK_K, MAIN], 0.0, wide)
    key_rest, value_rest = key_main, value_main
    if TAIL > 0:
        key_rest = tl.full([BLOCK_K, TAIL], 0.0, wide)
        value_rest = tl.full([BLOCK_K, TAIL], 0.0, wide)
    for start in range(0, len_q, BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        in_q = rows < len_q
        query, query_tail = load_head(
            q + first_q * q_stride + head * q_head, rows, q_stride, in_q, D, MAIN, TAIL, UP
        )
        own_q = load_ids(code_q, 0 if SHARED_Q else first_q, rows, in_q, 0)
        ids_q = load_ids(group_q, first_q, rows, in_q, -1)
        scores = finish_scores(
            inner(key, key_tail, query, query_tail, TAIL), in_k[:, None] & in_q[None, :],
            table, head, own_q[None, :], own_k[:, None], code_offset, num_rows,
            group_q, ids_q[None, :], ids_k[:, None], SCALE,
        )  # fmt: skip
        weights = tl.exp2(scores - load_lse(lse + head * total_q + first_q, rows, in_q)[None, :])
        grad, grad_tail = load_head(
            grad_out + first_q * grad_stride + head * grad_head, rows, grad_stride, in_q, D, MAIN, TAIL, UP
        )
        rounded = weights.to(grad.dtype)
        value_main = tl.dot(rounded, grad, value_main, input_precision="ieee")
        if TAIL > 0:
            value_rest = tl.dot(rounded, grad_tail, value_rest, input_precision="ieee")
        own_delta = tl.load(delta + head * total_q + first_q + rows, mask=in_q, other=0.0)
        d_scores = weights * (inner(value, value_tail, grad, grad_tail, TAIL) - own_delta[None, :])
        d_scores = d_scores.to(query.dtype)
        key_main = tl.dot(d_scores, query, key_main, input_precision="ieee")
        if TAIL > 0:
            key_rest = tl.dot(d_scores, query_tail, key_rest, input_precision="ieee")
    key_main = key_main * SCALE
    if TAIL > 0:
        key_rest = key_rest * SCALE
    store_head(
        dk + first_k * dk_stride + head * dk_head, key_main, key_rest, cols, dk_stride, in_k, D, MAIN, TAIL
    )
    store_head(
        dv + first_k * dv_stride + head * dv_head,
        value_main,
        value_rest,
        cols,
        dv_stride,
        in_k,
        D,
        MAIN,
        TAIL,
    )
