"""Layer norm, linear and MLP with hand-written gradients that store and move less.

Autograd keeps the input and the output of every layer and passes the whole batch through memory once per
operation. These functions keep only what can't be recomputed cheaply and work through the tokens in pieces
that stay in the cache. Values and gradients are those of the plain layers up to rounding.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu

from maskpre.ops.gemm import affine, affine_add, outer_sum

PIECE_BYTES = 8 * 2**20


def _pieces(rows: int, row_bytes: int) -> list[slice]:
    size = max(256, PIECE_BYTES // row_bytes)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


class _NormLinear(torch.autograd.Function):
    """linear(layer_norm(x)); the normalised tokens are computed again instead of kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, eps: float, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        normed, _, _ = torch.native_layer_norm(x, x.shape[-1:], gain, shift, eps)
        ctx.save_for_backward(x, gain, shift, weight)
        ctx.eps, ctx.has_bias = eps, bias is not None
        return affine(normed, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, shift, weight = ctx.saved_tensors
        grad = grad.contiguous()
        normed, mean, scale = torch.native_layer_norm(x, x.shape[-1:], gain, shift, ctx.eps)
        d_weight, d_bias = outer_sum(grad, normed), grad.sum(0) if ctx.has_bias else None
        d_normed = affine(grad, weight.t())
        dx, d_gain, d_shift = torch.ops.aten.native_layer_norm_backward(
            d_normed, x, x.shape[-1:], mean, scale, gain, shift, [True, True, True]
        )
        return dx, d_gain, d_shift, None, d_weight.contiguous(), d_bias


class _AddLinear(torch.autograd.Function):
    """other + linear(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return affine_add(x, weight, bias, other)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        d_bias = grad.sum(0) if ctx.has_bias else None
        return affine(grad, weight.t()), grad, outer_sum(grad, x).contiguous(), d_bias


class _NormMlp(torch.autograd.Function):
    """x + fc2(gelu(fc1(layer_norm(x)))); keeps x and fc1's output."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        shift: Tensor,
        eps: float,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
    ) -> Tensor:
        hidden: list[Tensor] = []
        out = torch.empty_like(x)
        for piece in _pieces(len(x), w1.shape[0] * x.element_size()):
            normed = torch.native_layer_norm(x[piece], x.shape[-1:], gain, shift, eps)[0]
            before = affine(normed, w1, b1)
            out[piece] = affine_add(gelu(before), w2, b2, x[piece])
            if any(ctx.needs_input_grad):
                hidden.append(before)
        ctx.save_for_backward(x, gain, shift, w1, w2, *hidden)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, shift, w1, w2, *hidden = ctx.saved_tensors
        grad = grad.contiguous()
        dx = torch.empty_like(x)
        d_w1 = d_w2 = None
        d_b1 = torch.zeros_like(w1[:, 0])
        d_gain, d_shift = torch.zeros_like(gain), torch.zeros_like(shift)
        for piece, before in zip(_pieces(len(x), w1.shape[0] * x.element_size()), hidden, strict=True):
            normed, mean, scale = torch.native_layer_norm(x[piece], x.shape[-1:], gain, shift, ctx.eps)
            d_w2 = outer_sum(grad[piece], gelu(before), d_w2)
            d_before = torch.ops.aten.gelu_backward(affine(grad[piece], w2.t()), before)
            d_w1 = outer_sum(d_before, normed, d_w1)
            d_b1 += d_before.sum(0)
            parts = torch.ops.aten.native_layer_norm_backward(
                affine(d_before, w1.t()), x[piece], x.shape[-1:], mean, scale, gain, shift, [True, True, True]
            )
            torch.add(parts[0], grad[piece], out=dx[piece])
            d_gain += parts[1]
            d_shift += parts[2]
        assert d_w1 is not None
        assert d_w2 is not None
        return dx, d_gain, d_shift, None, d_w1.contiguous(), d_b1, d_w2.contiguous(), grad.sum(0)


def _by_hand(x: Tensor) -> bool:
    """Elsewhere the plain layers are faster: a GPU wants few large operations, a compiler fuses them."""
    return (
        x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    )


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def norm_linear(
    x: Float[Tensor, "*n i"], norm: nn.LayerNorm, layer: nn.Linear, bias: Float[Tensor, "o"] | None = None
) -> Float[Tensor, "*n o"]:
    """Apply layer(norm(x)), which adds `bias` if that is given, else its own."""
    if not _by_hand(x):
        return layer(norm(x))
    bias = layer.bias if bias is None else bias
    out = _NormLinear.apply(_rows(x), norm.weight, norm.bias, norm.eps, layer.weight, bias)
    return out.unflatten(0, x.shape[:-1])


def add_linear(
    x: Float[Tensor, "*n i"], layer: nn.Linear, other: Float[Tensor, "*n o"]
) -> Float[Tensor, "*n o"]:
    """Sum other + layer(x)."""
    if not _by_hand(x):
        return other + layer(x)
    out = _AddLinear.apply(_rows(x), _rows(other), layer.weight, layer.bias)
    return out.unflatten(0, x.shape[:-1])


def add_mlp(
    x: Float[Tensor, "*n d"], norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear
) -> Float[Tensor, "*n d"]:
    """Sum x + fc2(gelu(fc1(norm(x))))."""
    if not _by_hand(x):
        return x + fc2(gelu(fc1(norm(x))))
    out = _NormMlp.apply(
        _rows(x), norm.weight, norm.bias, norm.eps, fc1.weight, fc1.bias, fc2.weight, fc2.bias
    )
    return out.unflatten(0, x.shape[:-1])
