"""Backward kernel of short samples: all gradients in one launch, every tensor read and written once."""

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
def backward_tile(
    q, k, v, out, lse, grad_out, dq, dk, dv, partial,
    cu_q, cu_k, group_q, group_k, table, code_q, code_k,
    q_stride, q_head, k_stride, k_head, v_stride, v_head,
    grad_stride, grad_head, dq_stride, dq_head, dk_stride, dk_head, dv_stride, dv_head,
    num_heads, max_q, max_k, total_q, code_offset, num_rows,
    num_samples, samples_each, places_q, places_k,
    SHARED_Q: tl.constexpr, SHARED_K: tl.constexpr, SCALE: tl.constexpr,
    D: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """One head of `samples_each` samples, one after the other: max_q <= BLOCK_Q and max_k <= BLOCK_K.

    `partial` (programs of a head, H, places_q, places_k) receives the gradient of the scores summed over
    the program's samples by the places of query and key. With shared codes a place is a token's number in
    its sample and the sum stays in registers. Otherwise it is the code + 1, and `partial` must start as
    zeros: no two pairs of a sample share a place, and the barrier orders one sample after the other.
    """
    head, part = head_and_rest(num_heads)
    wide: tl.constexpr = lse.dtype.element_ty
    corner = (part * num_heads + head) * places_q * places_k
    if partial is not None:
        d_scores_sum = tl.full([BLOCK_Q, BLOCK_K], 0.0, wide)
    first = part * samples_each
    for number in range(1 if partial is None else tl.minimum(samples_each, num_samples - first)):
        sample = first + number
        # Offsets must seem to depend on the sample: kept for all of them, they would fill the registers.
        zero = tl.minimum(sample, 0)
        rows, cols = zero + tl.arange(0, BLOCK_Q), zero + tl.arange(0, BLOCK_K)
        first_q, len_q = span(cu_q, sample, max_q)
        first_k, len_k = span(cu_k, sample, max_k)
        in_q, in_k = rows < len_q, cols < len_k
        inside = in_q[:, None] & in_k[None, :]
        query, query_tail = load_head(
            q + first_q * q_stride + head * q_head, rows, q_stride, in_q, D, MAIN, TAIL, UP
        )
        key, key_tail = load_head(
            k + first_k * k_stride + head * k_head, cols, k_stride, in_k, D, MAIN, TAIL, UP
        )
        own_q = load_ids(code_q, 0 if SHARED_Q else first_q, rows, in_q, 0)
        own_k = load_ids(code_k, 0 if SHARED_K else first_k, cols, in_k, 0)
        ids_q = load_ids(group_q, first_q, rows, in_q, -1)
        ids_k = load_ids(group_k, first_k, cols, in_k, -1)
        scores = finish_scores(
            inner(query, query_tail, key, key_tail, TAIL), inside,
            table, head, own_q[:, None], own_k[None, :], code_offset, num_rows,
            group_q, ids_q[:, None], ids_k[None, :], SCALE,
        )  # fmt: skip
        weights = tl.exp2(scores - load_lse(lse + head * total_q + first_q, rows, in_q)[:, None])
        grad, grad_tail = load_head(
            grad_out + first_q * grad_stride + head * grad_head, rows, grad_stride, in_q, D, MAIN, TAIL, UP
        )
        turned = tl.trans(weights.to(grad.dtype))
        main = tl.dot(turned, grad, input_precision="ieee")
        tail = main
        if TAIL > 0:
            tail = tl.dot(turned, grad_tail, input_precision="ieee")
        store_head(
            dv + first_k * dv_stride + head * dv_head, main, tail, cols, dv_stride, in_k, D, MAIN, TAIL
        )
        stride = num_heads * D
        made, made_tail = load_head(out + first_q * stride + head * D, rows, stride, in_q, D, MAIN, TAIL, UP)
        delta = row_products(made, made_tail, grad, grad_tail, wide, TAIL)
        value, value_tail = load_head(
            v + first_k * v_stride + head * v_head, cols, v_stride, in_k, D, MAIN, TAIL, UP
        )
        d_scores = weights * (inner(grad, grad_tail, value, value_tail, TAIL) - delta[:, None])
        if partial is not None:
            if SHARED_Q and SHARED_K:
                d_scores_sum += d_scores
            else:
                places = (own_q + 1)[:, None] * places_k + (own_k + 1)[None, :]
                known = ((own_q < places_q - 1) & in_q)[:, None] & ((own_k < places_k - 1) & in_k)[None, :]
                tl.debug_barrier()
                add_to(partial + corner + places, d_scores, known)
        d_scores = d_scores.to(query.dtype)
        main = tl.dot(d_scores, key, input_precision="ieee") * SCALE
        if TAIL > 0:
            tail = tl.dot(d_scores, key_tail, input_precision="ieee") * SCALE
        store_head(
            dq + first_q * dq_stride + head * dq_head, main, tail, rows, dq_stride, in_q, D, MAIN, TAIL
        )
        turned = tl.trans(d_scores)
        main = tl.dot(turned, query, input_precision="ieee") * SCALE
        if TAIL > 0:
            tail = tl.dot(turned, query_tail, input_precision="ieee") * SCALE
        store_head(
            dk + first_k * dk_stride + head * dk_head, main, tail, cols, dk_stride, in_k, D, MAIN, TAIL
        )
    if partial is not None and SHARED_Q and SHARED_K:
        rows, cols = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
        mask = (rows < places_q)[:, None] & (cols < places_k)[None, :]
        tl.store(partial + corner + rows[:, None] * places_k + cols[None, :], d_scores_sum, mask=mask)
