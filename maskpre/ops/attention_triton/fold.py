"""Gradient of the bias table from the gradient of the scores, summed over samples by places."""

import triton
import triton.language as tl

from maskpre.ops.attention_triton.scores import head_and_rest


@triton.jit
def count_below(codes, limit, length, STEPS: tl.constexpr):
    """How many of `length` < 2 ** STEPS sorted codes are below each limit, by bisection."""
    count = tl.zeros_like(limit)
    for step in tl.static_range(STEPS):
        probe = count + (1 << (STEPS - 1 - step))
        code = tl.load(codes + probe - 1, mask=probe <= length, other=2147483647)
        count = tl.where(code < limit, probe, count)
    return count


@triton.jit
def fold_table(
    d_scores, code_q, code_k, sorted_k, order_k, d_table,
    num_heads, places_q, places_k, code_offset, num_rows,
    STEPS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """BLOCK_ROWS rows of one head's table: (H, places_q, places_k) to (H, num_rows).

    Instead of scattering scores into rows, every row collects its scores in a fixed order: for each query
    it looks its keys up in `sorted_k`, the codes `code_k[order_k]`. Places may share a code.
    """
    head, part = head_and_rest(num_heads)
    d_scores += head * places_q * places_k
    rows = part * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    total = tl.full([BLOCK_ROWS], 0.0, d_table.dtype.element_ty)
    for start in range(0, places_q, BLOCK_Q):
        queries = start + tl.arange(0, BLOCK_Q)
        own = tl.load(code_q + queries, mask=queries < places_q, other=-1)[:, None]
        wanted = own + code_offset - rows[None, :]
        at = count_below(sorted_k, wanted, places_k, STEPS)
        useful = (own >= 0) & (wanted >= 0) & (rows < num_rows)[None, :]
        found = useful & (tl.load(sorted_k + at, mask=useful & (at < places_k), other=-1) == wanted)
        while tl.max(tl.max(found.to(tl.int32), 1), 0) > 0:
            key = tl.load(order_k + at, mask=found, other=0)
            total += tl.sum(tl.load(d_scores + queries[:, None] * places_k + key, mask=found, other=0.0), 0)
            at += 1
            found = found & (tl.load(sorted_k + at, mask=found & (at < places_k), other=-1) == wanted)
    if (part + 1) * BLOCK_ROWS > num_rows - 3:
        for start in range(0, places_q, BLOCK_Q):
            queries = start + tl.arange(0, BLOCK_Q)
            from_class = (tl.load(code_q + queries, mask=queries < places_q, other=0) < 0)[:, None]
            for start_k in range(0, places_k, BLOCK_K):
                keys = start_k + tl.arange(0, BLOCK_K)
                to_class = (tl.load(code_k + keys, mask=keys < places_k, other=0) < 0)[None, :]
                inside = (queries < places_q)[:, None] & (keys < places_k)[None, :]
                part_sums = tl.load(
                    d_scores + queries[:, None] * places_k + keys[None, :],
                    mask=inside & (from_class | to_class),
                    other=0.0,
                )
                both = tl.sum(tl.sum(tl.where(from_class & to_class, part_sums, 0.0), 1), 0)
                left = tl.sum(tl.sum(tl.where(to_class, 0.0, part_sums), 1), 0)
                right = tl.sum(tl.sum(tl.where(from_class, 0.0, part_sums), 1), 0)
                total += tl.where(rows == num_rows - 3, left, 0.0)
                total += tl.where(rows == num_rows - 2, right, 0.0)
                total += tl.where(rows == num_rows - 1, both, 0.0)
    tl.store(d_table + head * num_rows + rows, total, mask=rows < num_rows)
