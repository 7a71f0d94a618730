"""The kernels as torch operators, in Triton's interpreter: registration, compiling, recomputing, autocast."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

pytest.importorskip("triton", reason="the kernels need Triton")

from maskpre.ops import attention_op
from maskpre.ops.attention_layout import Layout
from maskpre.ops.masked_attention import masked_attention, masked_attention_qkv

CU = torch.tensor([0, 3, 3, 7], dtype=torch.int32)
CODE = torch.tensor([-1, 0, 1, 3, 4], dtype=torch.int32)
GROUP = torch.tensor([0, 0, 1, 1, 0, 0, -1, 1, 1, 1], dtype=torch.int32)


def tokens(num: int, *, packed: bool = False, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = (num, 3, 2, 16) if packed else (num, 2, 16)
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def table(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 9 + 3, dtype=dtype, requires_grad=True)


def relative(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    return {"bias_table": table(dtype), "code": CODE, "code_offset": 4}


def layouts() -> list[Layout]:
    plain = Layout(num_samples=2, max_q=5, max_k=5, scale=0.25, cu_q=None, cu_k=None)
    ragged = Layout(num_samples=3, max_q=4, max_k=4, scale=0.25, cu_q=CU, cu_k=CU)
    full = Layout(
        cu_q=None,
        cu_k=None,
        num_samples=2,
        max_q=5,
        max_k=5,
        scale=0.25,
        group_q=GROUP,
        group_k=GROUP,
        table=table(),
        code_q=CODE,
        code_k=CODE,
        code_offset=4,
    )
    return [plain, ragged, full]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", layouts(), ids=["plain", "ragged", "everything"])
def test_operators_are_registered_as_torch_wants(layout: Layout, packed: bool) -> None:
    num = 7 if layout.cu_q is not None else 10
    options = attention_op.options(layout)
    if packed:
        opcheck(torch.ops.maskpre.attention_qkv.default, (tokens(num, packed=True), *options))
    else:
        opcheck(torch.ops.maskpre.attention.default, (tokens(num), tokens(num), tokens(num), *options))


def test_values_and_gradients_are_those_of_the_reference(problem: Any) -> None:
    outs, grads = [], []
    for backend in ("triton", "reference"):
        out, lse = masked_attention(
            problem.q, problem.k, problem.v, **problem.options, return_lse=True, backend=backend
        )
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        outs += [out, lse]
        grads += torch.autograd.grad(
            (out * weight).sum(), problem.inputs, allow_unused=True, materialize_grads=True
        )
    for found, wanted in zip(
        [*outs[:2], *grads[: len(grads) // 2]], [*outs[2:], *grads[len(grads) // 2 :]], strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_one_gradient_of_packed_projections() -> None:
    qkv = torch.randn(2, 5, 3, 2, 16, dtype=torch.float64, requires_grad=True)
    options = {"group": GROUP, **relative()}
    grads = []
    for backend in ("triton", "reference"):
        out = masked_attention_qkv(qkv, **options, backend=backend)
        grads.append(torch.autograd.grad(out.square().sum(), [qkv, options["bias_table"]]))
    for found, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_gradients_are_those_of_small_steps() -> None:
    def attend(qkv: Tensor, bias: Tensor) -> Tensor:
        return masked_attention_qkv(
            qkv, max_n=5, group=GROUP, bias_table=bias, code=CODE, code_offset=4, backend="triton"
        )

    qkv = torch.randn(10, 3, 2, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attend, (qkv, table()), fast_mode=True)


def test_gradients_may_be_expanded_or_have_gaps() -> None:
    q = tokens(6)
    dense = torch.autograd.grad(masked_attention(q, q, q, max_q=3, max_k=3, backend="reference").sum(), q)
    found = torch.autograd.grad(masked_attention(q, q, q, max_q=3, max_k=3, backend="triton").sum(), q)
    torch.testing.assert_close(found, dense)
    transposed = torch.randn(16, 2, 6, dtype=torch.float64).permute(2, 1, 0)
    both = [
        torch.autograd.grad(masked_attention(q, q, q, backend=backend), q, transposed)[0]
        for backend in ("triton", "reference")
    ]
    torch.testing.assert_close(*both)


class Toy(nn.Module):
    """Projections round attention, as in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96, dtype=torch.float64)
        self.table = nn.Parameter(torch.randn(2, 12, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, 2, 16))
        mixed = masked_attention_qkv(
            qkv, bias_table=self.table, code=CODE, code_offset=4, group=GROUP, backend="triton"
        )
        first, second, third = qkv.unbind(2)
        return mixed + masked_attention(first[:, 1:], second, third, backend="triton").mean(1, keepdim=True)


def run(toy: Toy, call: Any, x: Tensor) -> list[Tensor]:
    out = call(x)
    return [out, *torch.autograd.grad(out.square().sum(), [x, *toy.parameters()])]


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_whole(dynamic: bool) -> None:
    torch._dynamo.reset()
    toy, x = Toy(), torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(toy, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for found, wanted in zip(run(toy, compiled, x), run(toy, toy, x), strict=True):
        assert torch.equal(found, wanted)


def test_compiled_code_takes_any_number_of_packed_tokens() -> None:
    torch._dynamo.reset()

    def attend(qkv: Tensor, cu: Tensor) -> Tensor:
        return masked_attention_qkv(qkv, cu=cu, max_n=8, backend="triton")

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attend, fullgraph=True, backend=counter, dynamic=True)
    for lengths in ([3, 4], [8, 1], [2, 5]):
        cu = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        qkv = tokens(sum(lengths), packed=True)
        assert torch.equal(compiled(qkv, cu), attend(qkv, cu))
    assert counter.frame_count == 1


def test_recomputing_changes_nothing() -> None:
    toy, x = Toy(), torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    again = partial(checkpoint, toy, use_reentrant=False)
    for found, wanted in zip(run(toy, again, x), run(toy, toy, x), strict=True):
        assert torch.equal(found, wanted)


def test_attention_can_be_kept_while_the_rest_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskpre.ops.attention_triton import launch

    calls: list[str] = []
    forward = launch.forward
    monkeypatch.setattr(
        launch, "forward", lambda *given, **named: calls.append("") or forward(*given, **named)
    )
    kept = (torch.ops.maskpre.attention.default, torch.ops.maskpre.attention_qkv.default)

    def policy(ctx: Any, operator: Any, *given: Any, **named: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operator in kept else CheckpointPolicy.PREFER_RECOMPUTE

    toy, x = Toy(), torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    contexts = partial(create_selective_checkpoint_contexts, policy)
    found = run(toy, partial(checkpoint, toy, use_reentrant=False, context_fn=contexts), x)
    assert len(calls) == 2
    for one, other in zip(found, run(toy, toy, x), strict=True):
        assert torch.equal(one, other)


def test_autocast_leaves_the_table_in_float32() -> None:
    qkv, bias = tokens(10, packed=True, dtype=torch.float32), table(torch.float32)
    options: dict[str, Any] = {"max_n": 5, "bias_table": bias, "code": CODE, "code_offset": 4}
    with torch.autocast("cpu", torch.float16):
        out = masked_attention_qkv(qkv, **options, backend="triton")
    exact = masked_attention_qkv(qkv.half().float(), **options, backend="reference")
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), exact, rtol=0, atol=5e-3)
    out.float().sum().backward()
    assert bias.grad is not None
    assert bias.grad.dtype == torch.float32
    assert qkv.grad is not None
    assert qkv.grad.dtype == torch.float32


def test_same_again_under_deterministic_algorithms() -> None:
    toy, x = Toy(), torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    first = run(toy, toy, x)
    torch.use_deterministic_algorithms(True)
    try:
        for one, other in zip(run(toy, toy, x), first, strict=True):
            assert torch.equal(one, other)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_second_derivative_is_refused() -> None:
    q = tokens(4)
    out = masked_attention(q, q, q, backend="triton")
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()
