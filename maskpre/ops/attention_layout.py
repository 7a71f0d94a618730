"""Who attends to whom in a batch of token sequences, checked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from jaxtyping import Float, Int32
from torch import Tensor

Pair = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The sequences of a batch, the pairs that may attend, and their biases; see `masked_attention`.

    Groups hold one entry per token, codes one per token or one per place in a sequence; both are flat.
    """

    cu_q: Int32[Tensor, "s"] | None = None
    cu_k: Int32[Tensor, "s"] | None = None
    num_samples: int
    max_q: int
    max_k: int
    group_q: Int32[Tensor, "tq"] | None = None
    group_k: Int32[Tensor, "tk"] | None = None
    table: Float[Tensor, "h r"] | None = None
    code_q: Int32[Tensor, "nq"] | None = None
    code_k: Int32[Tensor, "nk"] | None = None
    code_offset: int = 0
    scale: float

    @property
    def plain(self) -> bool:
        """Whether every query attends to every key of its sample, and all samples are equally long."""
        return self.cu_q is None and self.group_q is None and self.table is None

    @property
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are given, by name."""
        for name in ("cu_q", "cu_k", "group_q", "group_k", "table", "code_q", "code_k"):
            value = getattr(self, name)
            if value is not None:
                yield name, value


def check_tokens(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless q, k and v are (b, n, h, d) or (t, h, d), of one type and one head size."""
    if q.dim() not in (3, 4) or k.dim() != q.dim() or v.shape != k.shape:
        raise ValueError(
            "q, k and v must all be (b, n, h, d) or all (t, h, d), k and v of the same shape; got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if q.shape[-2:] != k.shape[-2:] or (q.dim() == 4 and len(q) != len(k)):
        raise ValueError(
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must agree in samples, heads and head size"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(f"q, k and v must be of one floating type, got {q.dtype}, {k.dtype} and {v.dtype}")


def check_layout(layout: Layout, q: Tensor, k: Tensor) -> None:
    """Raise ValueError, naming sizes, if the layout's tensors don't fit each other or the tokens."""
    num_q, num_k = (tokens.shape[:-2].numel() for tokens in (q, k))
    check_lengths(layout, num_q, num_k)
    given = dict(layout.tensors)
    if not given:
        return
    _check_pairs(given)
    for name, values, tokens in (("group_q", layout.group_q, num_q), ("group_k", layout.group_k, num_k)):
        if values is not None and values.shape != (tokens,):
            raise ValueError(f"{name} must have one entry per token ({tokens}), got {tuple(values.shape)}")
    if layout.table is not None:
        _check_table(layout, layout.table, q, num_q, num_k)
    for name, values in given.items():
        if values.device != q.device:
            raise ValueError(f"{name} is on {values.device}, q on {q.device}")
        if name != "table" and values.dtype != torch.int32:
            raise ValueError(f"{name} must be int32, got {values.dtype}")


def _check_pairs(given: Mapping[str, Tensor]) -> None:
    for one, other in (("cu_q", "cu_k"), ("group_q", "group_k"), ("code_q", "code_k")):
        if (one in given) != (other in given):
            missing, present = (one, other) if other in given else (other, one)
            raise ValueError(f"{present} is given without {missing}: give both or none")
    if ("table" in given) != ("code_q" in given):
        present, missing = ("bias_table", "codes") if "table" in given else ("codes", "a bias_table")
        raise ValueError(f"{present} given without {missing}: a bias is looked up by the tokens' codes")


def check_lengths(layout: Layout, num_q: int, num_k: int) -> None:
    """Raise ValueError unless samples of those lengths have `num_q` queries and `num_k` keys in all."""
    sides = (("q", layout.cu_q, layout.max_q, num_q), ("k", layout.cu_k, layout.max_k, num_k))
    for side, cu, longest, tokens in sides:
        if cu is None and longest * layout.num_samples != tokens:
            raise ValueError(
                f"{tokens} tokens of {side} are not {layout.num_samples} samples of max_{side} ({longest}); "
                f"give cu_{side} where samples differ in length"
            )
        if cu is not None and cu.shape != (layout.num_samples + 1,):
            raise ValueError(
                f"cu_{side} must have {layout.num_samples + 1} entries, one more than there are samples; got "
                f"{tuple(cu.shape)}"
            )


def _check_table(layout: Layout, table: Tensor, q: Tensor, num_q: int, num_k: int) -> None:
    heads, wanted = q.shape[-2], (torch.float32, q.dtype if q.dtype == torch.float64 else torch.float32)
    if table.dim() != 2 or table.shape[0] != heads or table.shape[1] < 1:
        raise ValueError(f"bias_table must be (heads = {heads}, rows), got {tuple(table.shape)}")
    if table.dtype not in wanted:
        raise ValueError(f"bias_table must stay float32 beside {q.dtype}, got {table.dtype}")
    sides = (
        ("code_q", layout.code_q, num_q, layout.max_q),
        ("code_k", layout.code_k, num_k, layout.max_k),
    )
    for name, code, tokens, longest in sides:
        if code is not None and code.shape not in ((tokens,), (longest,)):
            raise ValueError(
                f"{name} must have one entry per token ({tokens}), or one per place in a sample "
                f"({longest}); got {tuple(code.shape)}"
            )


def _flat(values: Tensor | None) -> Tensor | None:
    return values.flatten() if values is not None and values.dim() > 1 else values


def _lengths(shape: Sequence[int], cu: Tensor | None, longest: int | None, side: str) -> tuple[int, int]:
    """The number of samples and the length of the longest."""
    if len(shape) == 4:
        if cu is not None or longest not in (None, shape[1]):
            raise ValueError(
                f"cu_{side} and max_{side} belong to packed tokens (t, h, d), not to (b, n, h, d)"
            )
        return shape[0], shape[1]
    if cu is None:
        longest = shape[0] if longest is None else longest
        return shape[0] // max(longest, 1), longest
    if longest is None:
        raise ValueError(f"cu_{side} needs max_{side}, a bound on the lengths that is known beforehand")
    return len(cu) - 1, longest


def _plain(
    shape_q: tuple[int, ...],
    shape_k: tuple[int, ...],
    longest: tuple[int | None, int | None],
    scale: float | None,
) -> Layout:
    """The checked layout of samples that are equally long, without mask and bias."""
    num_samples, max_q = _lengths(shape_q, None, longest[0], "q")
    _, max_k = _lengths(shape_k, None, longest[1], "k")
    scale = shape_q[-1] ** -0.5 if scale is None else scale
    layout = Layout(num_samples=num_samples, max_q=max_q, max_k=max_k, scale=scale)
    check_lengths(layout, prod(shape_q[:-2]), prod(shape_k[:-2]))
    return layout


# Made once for all calls alike: checks show beside the attention of short sequences on a CPU.
_known_plain = lru_cache(maxsize=256)(_plain)


def arrange_plain(
    shape_q: tuple[int, ...],
    shape_k: tuple[int, ...],
    longest: tuple[int | None, int | None],
    scale: float | None,
) -> Layout:
    """What `arrange` makes of tokens of those shapes with neither masks nor biases."""
    # Compilers look through a cache and warn that they do.
    plan = _plain if torch.compiler.is_compiling() else _known_plain
    return plan(shape_q, shape_k, longest, scale)


def arrange(
    q: Tensor,
    k: Tensor,
    *,
    cu: Pair,
    longest: tuple[int | None, int | None],
    group: Pair,
    code: Pair,
    table: Tensor | None,
    code_offset: int,
    scale: float | None,
) -> Layout:
    """The checked layout of tokens whose queries and keys look like `q` and `k`; pairs are theirs, too.

    Raises ValueError, naming sizes, if something doesn't fit.
    """
    num_samples, max_q = _lengths(q.shape, cu[0], longest[0], "q")
    _, max_k = _lengths(k.shape, cu[1], longest[1], "k")
    layout = Layout(
        cu_q=cu[0],
        cu_k=cu[1],
        num_samples=num_samples,
        max_q=max_q,
        max_k=max_k,
        group_q=_flat(group[0]),
        group_k=_flat(group[1]),
        table=table,
        code_q=_flat(code[0]),
        code_k=_flat(code[1]),
        code_offset=code_offset,
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
    )
    check_layout(layout, q, k)
    return layout
