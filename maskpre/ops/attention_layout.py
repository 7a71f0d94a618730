"""Who attends to whom in a batch of token sequences, checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor


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
    _check_lengths(layout, num_q, num_k)
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


def _check_lengths(layout: Layout, num_q: int, num_k: int) -> None:
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
