"""Attention problems of every kind, and a plain statement of what their solution is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass
class Problem:
    """Packed float64 tokens and the arguments of `masked_attention`."""

    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Tensor]:
        table = self.options.get("bias_table")
        return [self.q, self.k, self.v, *([] if table is None else [table])]

    def solve(self) -> tuple[Tensor, Tensor]:
        """Output (t, h, d) and log-sum-exp (h, t), query by query."""
        out = 0 * self.q
        lse = self.q.new_full((self.q.shape[1], len(self.q)), -torch.inf)
        for sample, (first, last) in enumerate(self._ranges("q")):
            for query in range(first, last):
                keys = [key for key in range(*self._ranges("k")[sample]) if self._sees(query, key)]
                if keys:
                    scores = self._scores(query, keys, first, self._ranges("k")[sample][0])
                    lse[:, query] = scores.logsumexp(dim=1)
                    out[query] = torch.einsum("hk,khd->hd", scores.softmax(dim=1), self.v[keys])
        return out, lse

    def _ranges(self, side: str) -> list[tuple[int, int]]:
        cu, longest = self.options.get(f"cu_{side}"), self.options.get(f"max_{side}")
        tokens = len(self.q if side == "q" else self.k)
        starts = list(range(0, tokens + 1, longest or tokens)) if cu is None else cu.tolist()
        return list(pairwise(starts))

    def _sees(self, query: int, key: int) -> bool:
        if self.options.get("group_q") is None:
            return True
        asking, asked = self.options["group_q"].flatten()[query], self.options["group_k"].flatten()[key]
        return bool(asking == asked and asked >= 0)

    def _scores(self, query: int, keys: list[int], first_q: int, first_k: int) -> Tensor:
        scale = self.options.get("scale") or self.q.shape[-1] ** -0.5
        scores = torch.einsum("hd,khd->hk", self.q[query], self.k[keys]) * scale
        if self.options.get("bias_table") is None:
            return scores
        rows = [self._row(query, key, first_q, first_k) for key in keys]
        return scores + self.options["bias_table"][:, rows]

    def _row(self, query: int, key: int, first_q: int, first_k: int) -> int:
        code_q, code_k = self.options["code_q"], self.options["code_k"]
        asking = int(code_q[query] if len(code_q) == len(self.q) else code_q[query - first_q])
        asked = int(code_k[key] if len(code_k) == len(self.k) else code_k[key - first_k])
        num_rows = self.options["bias_table"].shape[1]
        if asking < 0:
            return num_rows - 1 if asked < 0 else num_rows - 3
        return num_rows - 2 if asked < 0 else asking - asked + self.options["code_offset"]


def _int(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _codes(shape: tuple[int, int]) -> Tensor:
    """A class token, then the cells of a grid."""
    rows, cols = shape
    return _int([-1, *(y * (2 * cols - 1) + x for y in range(rows) for x in range(cols))])


def _offset(shape: tuple[int, int]) -> int:
    return (shape[0] - 1) * (2 * shape[1] - 1) + shape[1] - 1


def _table(shape: tuple[int, int], heads: int) -> Tensor:
    return torch.randn(heads, (2 * shape[0] - 1) * (2 * shape[1] - 1) + 3, dtype=torch.float64)


def _tokens(num_q: int, num_k: int | None = None, heads: int = 2, dim: int = 16) -> list[Tensor]:
    num_k = num_q if num_k is None else num_k
    return [torch.randn(num, heads, dim, dtype=torch.float64) for num in (num_q, num_k, num_k)]


def _ragged() -> dict[str, Any]:
    cu = _int([0, 5, 5, 6, 13])
    return {"cu_q": cu, "cu_k": cu, "max_q": 8, "max_k": 8}


def _relative(shape: tuple[int, int], heads: int = 2) -> dict[str, Any]:
    codes = _codes(shape)
    return {
        "code_q": codes,
        "code_k": codes,
        "bias_table": _table(shape, heads),
        "code_offset": _offset(shape),
    }


def _visible() -> dict[str, Any]:
    """Three samples that each keep the class token and other cells of a 3 x 3 grid."""
    codes = _codes((3, 3))[_int([0, 1, 5, 9, 0, 3, 2, 8, 0, 7, 4, 6])]
    return {**_relative((3, 3)), "code_q": codes, "code_k": codes, "max_q": 4, "max_k": 4}


def _grouped(groups: list[int]) -> dict[str, Any]:
    return {"group_q": _int(groups), "group_k": _int(groups)}


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "plain": lambda: Problem(*_tokens(14), {"max_q": 7, "max_k": 7}),
    "one sample": lambda: Problem(*_tokens(5)),
    "scaled": lambda: Problem(*_tokens(6), {"scale": 0.7}),
    "cross": lambda: Problem(*_tokens(6, 10), {"max_q": 3, "max_k": 5}),
    "ragged": lambda: Problem(*_tokens(13), _ragged()),
    "ragged cross": lambda: Problem(
        *_tokens(6, 7), {"cu_q": _int([0, 2, 6]), "cu_k": _int([0, 7, 7]), "max_q": 4, "max_k": 7}
    ),
    "groups": lambda: Problem(*_tokens(8), {"max_q": 4, "max_k": 4, **_grouped([0, 0, 1, 1, 0, -1, 2, 0])}),
    "nobody": lambda: Problem(*_tokens(3), _grouped([-1, -1, -1])),
    "ragged groups": lambda: Problem(*_tokens(13), {**_ragged(), **_grouped([0, 1, 0, 1, -1, 3, *[2] * 7])}),
    "table": lambda: Problem(*_tokens(14), {"max_q": 7, "max_k": 7, **_relative((2, 3))}),
    "windows": lambda: Problem(
        *_tokens(14), {"max_q": 7, "max_k": 7, **_relative((2, 3)), **_grouped([0] * 3 + [1] * 5 + [4] * 6)}
    ),
    "windows with holes": lambda: Problem(
        *_tokens(14),
        {"max_q": 7, "max_k": 7, **_relative((2, 3)), **_grouped([0, -1, 0, 1, 1, -1, 2] + [-1] * 7)},
    ),
    "visible": lambda: Problem(*_tokens(12), _visible()),
}


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> Problem:
    """One problem of every kind."""
    torch.manual_seed(0)
    made = PROBLEMS[request.param]()
    for tensor in made.inputs:
        tensor.requires_grad_(True)
    return made
