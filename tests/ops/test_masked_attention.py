"""The dense implementations against a query-by-query statement, and what is refused."""

import logging
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from maskpre.ops import attention_choice
from maskpre.ops.attention_choice import choose_backend
from maskpre.ops.masked_attention import masked_attention, masked_attention_qkv


class Problem(Protocol):
    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any]

    @property
    def inputs(self) -> list[Tensor]: ...

    def solve(self) -> tuple[Tensor, Tensor]: ...


@pytest.mark.parametrize("backend", ["auto", "sdpa", "reference"])
def test_values_and_gradients_are_those_of_the_definition(problem: Problem, backend: Any) -> None:
    wanted, _ = problem.solve()
    found = masked_attention(problem.q, problem.k, problem.v, **problem.options, backend=backend)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(wanted)
    ours, theirs = (
        torch.autograd.grad((out * weight).sum(), problem.inputs, allow_unused=True, materialize_grads=True)
        for out in (found, wanted)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_log_sum_exp(problem: Problem) -> None:
    _, wanted = problem.solve()
    _, found = masked_attention(problem.q, problem.k, problem.v, **problem.options, return_lse=True)
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-12, atol=1e-12)
    assert not found.requires_grad


def test_batched_tokens_are_packed_ones() -> None:
    qkv = torch.randn(3, 6, 3, 2, 16)
    group = torch.randint(-1, 2, (3, 6), dtype=torch.int32)
    code = torch.arange(6, dtype=torch.int32)
    table = torch.randn(2, 11)
    options: dict[str, Any] = {"group": group, "code": code, "bias_table": table, "code_offset": 5}
    batched = masked_attention_qkv(qkv, **options)
    packed = masked_attention_qkv(qkv.flatten(0, 1), max_n=6, **options)
    torch.testing.assert_close(batched.flatten(0, 1), packed)


@pytest.mark.parametrize("backend", ["sdpa", "reference", "triton"])
def test_as_many_codes_as_tokens_are_one_per_token(backend: Any) -> None:
    if backend == "triton":
        pytest.importorskip("triton", reason="the kernels need Triton")
    # Here the longest sample may have as many tokens as there are in all.
    qkv, table = torch.randn(8, 3, 2, 16, dtype=torch.float64), torch.randn(2, 15, dtype=torch.float64)
    cu, code = torch.tensor([0, 3, 8], dtype=torch.int32), torch.randperm(8).int()
    options: dict[str, Any] = {"bias_table": table, "code_offset": 7, "backend": backend}
    found = masked_attention_qkv(qkv, cu=cu, max_n=8, code=code, **options)
    alone = [
        masked_attention_qkv(qkv[first:last], max_n=last - first, code=code[first:last], **options)
        for first, last in ((0, 3), (3, 8))
    ]
    torch.testing.assert_close(found, torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_reference_computes_in_float32(dtype: torch.dtype) -> None:
    q = torch.randn(2, 5, 2, 16)
    exact = masked_attention(q.to(dtype).double(), q.to(dtype).double(), q.to(dtype).double())
    found = masked_attention(q.to(dtype), q.to(dtype), q.to(dtype), backend="reference")
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact.to(dtype), rtol=0, atol=0.01)


def test_autocast_rounds_tokens_and_leaves_the_table() -> None:
    q = torch.randn(2, 5, 2, 16)
    table = torch.randn(2, 9, requires_grad=True)
    code = torch.arange(5, dtype=torch.int32)
    with torch.autocast("cpu", torch.bfloat16):
        out = masked_attention(q, q, q, bias_table=table, code_q=code, code_k=code, code_offset=4)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert table.grad is not None
    assert table.grad.dtype == torch.float32


def _choice(device: str = "cuda", **changes: Any) -> str:
    options: dict[str, Any] = {"dtype": torch.bfloat16, "head_dim": 64, "longest": 50, "plain": True}
    return choose_backend("auto", device=torch.device(device), **{**options, **changes})


def test_the_kernels_are_chosen_where_they_win(monkeypatch: pytest.MonkeyPatch) -> None:
    attention_choice._known.cache_clear()
    monkeypatch.setattr(attention_choice, "_has_triton", lambda: True)
    assert _choice() == "triton"
    assert _choice(longest=1568) == "sdpa"
    assert _choice(longest=1568, plain=False) == "triton"
    assert _choice(dtype=torch.float32) == "sdpa"
    assert _choice(head_dim=256) == "sdpa"
    assert _choice("cpu") == "sdpa"
    assert _choice("cpu", lse=True) == "reference"
    attention_choice._known.cache_clear()
    monkeypatch.setattr(attention_choice, "_has_triton", lambda: False)
    assert _choice() == "sdpa"
    attention_choice._known.cache_clear()


def test_a_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    attention_choice._known.cache_clear()
    attention_choice._log_once.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            masked_attention(*torch.randn(3, 1, 4, 2, 16))
    assert [record.getMessage() for record in caplog.records] == [
        "attention on cpu, torch.float32, heads of 16, up to 64 keys, plain: sdpa"
    ]


def test_plain_attention_on_a_cpu_is_torchs_own() -> None:
    q, k, v = torch.randn(3, 2, 5, 2, 16)
    theirs = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    assert torch.equal(masked_attention(q, k, v), theirs)


Q = torch.zeros(2, 5, 2, 16)
PACKED = Q.flatten(0, 1)
CU = torch.tensor([0, 4, 10], dtype=torch.int32)
TABLE, CODE = torch.zeros(2, 9), torch.arange(5, dtype=torch.int32)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ((Q, Q[:1], Q[:1]), {}, r"q \(2, 5, 2, 16\) and k \(1, 5, 2, 16\) must agree"),
        ((Q, Q, Q[:, 1:]), {}, r"k and v of the same shape; got .*\(2, 4, 2, 16\)"),
        ((Q, Q, Q.double()), {}, "one floating type, got torch.float32, torch.float32 and torch.float64"),
        ((Q, Q, Q), {"max_q": 4}, "belong to packed tokens"),
        ((PACKED,) * 3, {"cu_q": CU, "cu_k": CU}, "cu_q needs max_q"),
        ((PACKED,) * 3, {"max_q": 3, "max_k": 5}, r"10 tokens of q are not 3 samples of max_q \(3\)"),
        ((PACKED,) * 3, {"cu_q": CU, "max_q": 6, "max_k": 5}, "cu_q is given without cu_k"),
        (
            (PACKED,) * 3,
            {"cu_q": CU, "cu_k": CU[:2], "max_q": 6, "max_k": 6},
            r"cu_k must have 3 entries, .* got \(2,\)",
        ),
        ((Q, Q, Q), {"group_q": CODE, "group_k": CODE}, r"one entry per token \(10\), got \(5,\)"),
        ((Q, Q, Q), {"bias_table": TABLE}, "bias_table given without codes"),
        (
            (Q, Q, Q),
            {"bias_table": TABLE[:1], "code_q": CODE, "code_k": CODE},
            r"heads = 2, rows\), got \(1, 9",
        ),
        ((Q, Q, Q), {"bias_table": TABLE.half(), "code_q": CODE, "code_k": CODE}, "must stay float32"),
        (
            (Q, Q, Q),
            {"bias_table": TABLE, "code_q": CODE[:3], "code_k": CODE[:3]},
            r"per token \(10\), or one per place in a sample \(5\); got \(3,\)",
        ),
        ((Q, Q, Q), {"bias_table": TABLE, "code_q": CODE.long(), "code_k": CODE}, "code_q must be int32"),
        ((Q, Q, Q), {"backend": "sdpa", "return_lse": True}, "gives no log-sum-exp"),
    ],
)
def test_what_does_not_fit_is_refused(tokens: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masked_attention(*tokens, **options)


def test_packed_projections_are_refused_by_shape() -> None:
    with pytest.raises(ValueError, match=r"must be \(b, n, 3, h, d\) .* got \(2, 5, 2, 16\)"):
        masked_attention_qkv(Q)


def test_the_kernels_are_refused_where_they_can_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"runs on a GPU.*the tokens are on cpu"):
        masked_attention(Q, Q, Q, backend="triton")
