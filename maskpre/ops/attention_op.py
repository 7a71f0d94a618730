"""The fused attention kernels as torch operators: `torch.ops.maskpre.attention` and its packed form.

Defined with `Library.define` and one autograd function, whose calls cost less than half of those of a
`custom_op`: a short sequence's attention takes a few microseconds on a GPU.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import Library, register_fake

from maskpre.ops.attention_layout import Layout

_OPTIONS = (
    "Tensor? cu_q, Tensor? cu_k, SymInt num_samples, SymInt max_q, SymInt max_k, Tensor? group_q, "
    "Tensor? group_k, Tensor? table, Tensor? code_q, Tensor? code_k, SymInt code_offset, float scale"
)
_NAMES = tuple(field.name for field in fields(Layout))
_TABLE = _NAMES.index("table")
_TENSORS = ("cu_q", "cu_k", "group_q", "group_k", "table", "code_q", "code_k")


def options(layout: Layout) -> tuple[Any, ...]:
    """The layout as the operators take it."""
    return tuple(getattr(layout, name) for name in _NAMES)


def _rows(tokens: Tensor) -> Tensor:
    """The kernels want a head's values side by side in memory."""
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()


def _forward(q: Tensor, k: Tensor, v: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    from maskpre.ops.attention_triton import launch

    return launch.forward(_rows(q), _rows(k), _rows(v), **dict(zip(_NAMES, given, strict=True)))


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *given: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from maskpre.ops.attention_triton import launch

    dq, dk, dv, d_table = launch.backward(
        _rows(grad), _rows(q), _rows(k), _rows(v), out, lse, **dict(zip(_NAMES, given, strict=True))
    )
    return dq, dk, dv, _no_table(q) if d_table is None else d_table


def _forward_qkv(qkv: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    return _forward(*_rows(qkv).unbind(1), *given)


def _backward_qkv(grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    from maskpre.ops.attention_triton import launch

    q, k, v = _rows(qkv).unbind(1)
    grads = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    dq, dk, dv = grads.unbind(1)
    *_, d_table = launch.backward(
        _rows(grad), q, k, v, out, lse, **dict(zip(_NAMES, given, strict=True)), grads=(dq, dk, dv)
    )
    return grads, _no_table(qkv) if d_table is None else d_table


def _no_table(like: Tensor) -> Tensor:
    """Operators can't return None."""
    return like.new_empty(0, dtype=torch.float32)


def _fake(q: Tensor, k: Tensor, v: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=wide)


def _fake_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *given: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), _fake_table(q, given)


def _fake_qkv(qkv: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    return _fake(*qkv.unbind(1), *given)


def _fake_backward_qkv(
    grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, *given: Any
) -> tuple[Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), _fake_table(qkv, given)


def _fake_table(like: Tensor, given: Sequence[Any]) -> Tensor:
    table = given[_TABLE]
    return _no_table(like) if table is None else table.new_empty(table.shape)


class _Differentiable(torch.autograd.Function):
    """Either forward operator, by its number of token tensors.

    The log-sum-exp carries no gradient, and the gradients have none: the second backward pass raises.
    """

    @staticmethod
    def forward(ctx: Any, num_tokens: int, *given: Any) -> tuple[Tensor, Tensor]:
        tokens, layout = given[:num_tokens], dict(zip(_NAMES, given[num_tokens:], strict=True))
        with torch._C._AutoDispatchBelowAutograd():
            out, lse = _FORWARD[num_tokens](*given)
        ctx.save_for_backward(*tokens, out, lse, *[layout.pop(name) for name in _TENSORS])
        ctx.num_tokens, ctx.sizes = num_tokens, layout
        ctx.mark_non_differentiable(lse)
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * (1 + ctx.num_tokens + len(_NAMES))
        kept = ctx.saved_tensors
        tensors = dict(zip(_TENSORS, kept[ctx.num_tokens + 2 :], strict=True))
        layout = {**ctx.sizes, **tensors}
        *grads, d_table = _BACKWARD[ctx.num_tokens](
            grad, *kept[: ctx.num_tokens + 2], *[layout[name] for name in _NAMES]
        )
        of_layout: list[Tensor | None] = [None] * len(_NAMES)
        of_layout[_TABLE] = None if tensors["table"] is None else d_table
        return (None, *grads, *of_layout)


def _register() -> Library:
    library = Library("maskpre", "FRAGMENT")
    one, three = "Tensor qkv", "Tensor q, Tensor k, Tensor v"
    results = "Tensor out, Tensor lse"
    operators: list[tuple[str, str, Any, Any]] = [
        (f"attention({three}, {_OPTIONS})", "(Tensor, Tensor)", _forward, _fake),
        (f"attention_qkv({one}, {_OPTIONS})", "(Tensor, Tensor)", _forward_qkv, _fake_qkv),
        (
            f"attention_backward(Tensor grad, {three}, {results}, {_OPTIONS})",
            "(Tensor, Tensor, Tensor, Tensor)",
            _backward,
            _fake_backward,
        ),
        (
            f"attention_qkv_backward(Tensor grad, {one}, {results}, {_OPTIONS})",
            "(Tensor, Tensor)",
            _backward_qkv,
            _fake_backward_qkv,
        ),
    ]
    for schema, returns, kernel, fake in operators:
        library.define(f"{schema} -> {returns}", tags=(torch.Tag.pt2_compliant_tag,))
        name = schema.split("(")[0]
        for device in ("CUDA", "CPU"):
            library.impl(name, kernel, device)
        register_fake(f"maskpre::{name}", fake, lib=library)
    library.impl("attention", partial(_Differentiable.apply, 3), "Autograd")
    library.impl("attention_qkv", partial(_Differentiable.apply, 1), "Autograd")
    return library


LIBRARY = _register()
_FORWARD = {1: torch.ops.maskpre.attention_qkv, 3: torch.ops.maskpre.attention}
_BACKWARD = {1: torch.ops.maskpre.attention_qkv_backward, 3: torch.ops.maskpre.attention_backward}
