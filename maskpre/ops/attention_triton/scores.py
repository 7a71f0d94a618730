"""What all attention kernels share: where a sample lies, loading its tokens, scores of one tile.

Names in all kernels: `rows` are a sample's queries and `cols` its keys, counted from `first_q` and `first_k`,
which are int64: only offsets within a sample are sure to be below 2^31. A head of D dimensions is held in
two parts of MAIN and TAIL dimensions, both powers of two (80 = 64 + 16), or in one when TAIL is 0, which
leaves less padding than one power of two. UP makes bfloat16 into float32 on loading: Triton's interpreter
multiplies the bits of bfloat16 as if they were integers.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def span(cu, sample, longest):
    """First token of a sample and its number of tokens: `longest` in every sample without `cu`."""
    if cu is None:
        first, length = sample.to(tl.int64) * longest, longest
    else:
        start = tl.load(cu + sample)
        first, length = start.to(tl.int64), tl.load(cu + sample + 1) - start
    return first, length


@triton.jit
def head_and_rest(num_heads):
    """Head of the program, int64, and its number among the programs of that head."""
    program = tl.program_id(0)
    return (program % num_heads).to(tl.int64), program // num_heads


@triton.jit
def load_part(
    pointer, rows, stride, inside, FIRST: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, UP: tl.constexpr
):
    """Dimensions FIRST to FIRST + WIDTH of some tokens: (rows, WIDTH), zero outside."""
    dims = FIRST + tl.arange(0, WIDTH)
    mask = inside[:, None]
    if FIRST + WIDTH > D:
        mask = mask & (dims < D)[None, :]
    part = tl.load(pointer + rows[:, None] * stride + dims[None, :], mask=mask, other=0.0)
    if UP:
        part = part.to(tl.float32)
    return part


@triton.jit
def load_head(
    pointer, rows, stride, inside, D: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, UP: tl.constexpr
):
    """Both parts of some tokens of one head; the main part twice where there is no tail."""
    main = load_part(pointer, rows, stride, inside, 0, MAIN, D, UP)
    tail = main
    if TAIL > 0:
        tail = load_part(pointer, rows, stride, inside, MAIN, TAIL, D, UP)
    return main, tail


@triton.jit
def store_part(
    pointer, part, rows, stride, inside, FIRST: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr
):
    """Store dimensions FIRST to FIRST + WIDTH of some tokens."""
    dims = FIRST + tl.arange(0, WIDTH)
    mask = inside[:, None]
    if FIRST + WIDTH > D:
        mask = mask & (dims < D)[None, :]
    pointers = pointer + rows[:, None] * stride + dims[None, :]
    tl.store(pointers, part.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def store_head(
    pointer, main, tail, rows, stride, inside, D: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr
):
    """Store both parts of some tokens of one head."""
    store_part(pointer, main, rows, stride, inside, 0, MAIN, D)
    if TAIL > 0:
        store_part(pointer, tail, rows, stride, inside, MAIN, TAIL, D)


@triton.jit
def load_ids(pointer, first, rows, inside, other):
    """One int32 per token, `other` outside; the row numbers themselves where there are no such ids."""
    ids = rows
    if pointer is not None:
        ids = tl.load(pointer + first + rows, mask=inside, other=other)
    return ids


@triton.jit
def inner(left, left_tail, right, right_tail, TAIL: tl.constexpr):
    """Products left @ right.T over both parts of a head."""
    product = tl.dot(left, tl.trans(right), input_precision="ieee")
    if TAIL > 0:
        product = tl.dot(left_tail, tl.trans(right_tail), product, input_precision="ieee")
    return product


@triton.jit
def table_rows(code_q, code_k, code_offset, num_rows):
    """Row of the bias table of each pair; negative codes are class tokens, which own the last three."""
    between = code_q - code_k + code_offset
    from_class = tl.where(code_k < 0, num_rows - 1, num_rows - 3)
    return tl.where(code_q < 0, from_class, tl.where(code_k < 0, num_rows - 2, between))


@triton.jit
def finish_scores(
    products, inside,
    table, head, code_q, code_k, code_offset, num_rows,
    group, group_q, group_k, SCALE: tl.constexpr,
):  # fmt: skip
    """Scores in units of log 2 from products: scaled, biased, -inf where a query does not see a key.

    `group` only tells whether there are groups. Codes and groups are shaped to broadcast to the tile,
    whichever side the queries are on.
    """
    scores = products * (SCALE * LOG2E)
    if table is not None:
        biases = table + head * num_rows + table_rows(code_q, code_k, code_offset, num_rows)
        scores += tl.load(biases, mask=inside, other=0.0) * LOG2E
    if group is not None:
        inside = inside & (group_q == group_k) & (group_q >= 0)
    return tl.where(inside, scores, float("-inf"))


@triton.jit
def finish_softmax(top, total):
    """Natural logarithm of the denominator total * 2 ** top, -inf if 0, and what to multiply sums by."""
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    return tl.where(empty, float("-inf"), top * LN2 + tl.log(total)), 1.0 / total


@triton.jit
def load_lse(pointer, rows, inside):
    """Softmax denominators in units of log 2: infinity, which makes all weights 0, where no key is seen."""
    lse = tl.load(pointer + rows, mask=inside, other=float("-inf"))
    return tl.where(lse == float("-inf"), float("inf"), lse * LOG2E)


@triton.jit
def row_products(left, left_tail, right, right_tail, wide: tl.constexpr, TAIL: tl.constexpr):
    """Per token, the product of two heads' vectors."""
    product = tl.sum(left.to(wide) * right.to(wide), 1)
    if TAIL > 0:
        product += tl.sum(left_tail.to(wide) * right_tail.to(wide), 1)
    return product


@triton.jit
def add_to(pointers, amount, mask):
    """Add to memory that no other program touches."""
    tl.store(pointers, tl.load(pointers, mask=mask, other=0.0) + amount, mask=mask)
