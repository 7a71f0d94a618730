"""Matrix products on the CPU, by oneDNN where it is the faster library.

oneDNN's float32 products outrun the BLAS behind `torch.mm` by about a tenth on AVX-512 machines. PyTorch
reaches it for float32 only through an operator of its own compiler, which records no gradients: these
functions are for the inside of `torch.autograd.Function`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear

_FOUND = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()


def _by_onednn(x: Tensor) -> bool:
    # Other classes stand for tensors: fake ones, say, which the operators don't know.
    plain = type(x) in (Tensor, Parameter) and x.dtype is torch.float32 and x.device.type == "cpu"
    return _FOUND and plain and not torch.compiler.is_compiling()


def affine(
    x: Float[Tensor, "n i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None = None
) -> Float[Tensor, "n o"]:
    """Product x @ weight.T + bias."""
    if _by_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return linear(x, weight, bias)


def affine_add(
    x: Float[Tensor, "n i"],
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, "o"] | None,
    other: Float[Tensor, "n o"],
) -> Float[Tensor, "n o"]:
    """Sum other + x @ weight.T + bias, without a pass of its own for the sum."""
    if _by_onednn(x):
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, bias, "add")
    return linear(x, weight, bias).add_(other)


def outer_sum(
    left: Float[Tensor, "n o"], right: Float[Tensor, "n i"], total: Float[Tensor, "o i"] | None = None
) -> Float[Tensor, "o i"]:
    """Sum total + left.T @ right: the gradient of a weight, or the next share of one.

    The result may lie in memory transposed: the product is faster with the longer side as its columns.
    """
    if left.shape[1] > right.shape[1]:
        return outer_sum(right, left, None if total is None else total.t()).t()
    if total is None:
        return affine(left.t(), right.t())
    return affine_add(left.t(), right.t(), None, total)
