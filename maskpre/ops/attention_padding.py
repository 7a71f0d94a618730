"""Samples of differing length, packed one after another, as rows of one length and back."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor


class Rows(NamedTuple):
    """The numbers of the rows that are taken; those not `inside` stand for nothing and become 0."""

    source: Int32[Tensor, "n"]
    inside: Bool[Tensor, "n"]


class Padding(NamedTuple):
    """The way from t packed tokens to b samples of n, the way back, and the sizes.

    Sample i owns the tokens from cu[i] to cu[i + 1]; tokens from cu[b] on belong to none.
    """

    there: Rows
    back: Rows
    num_samples: int
    longest: int

    @classmethod
    def of(cls, cu: Int32[Tensor, "b+1"], *, longest: int, num_tokens: int) -> "Padding":
        """For samples of at most `longest` tokens."""
        num_samples, first, end = len(cu) - 1, cu[:-1], cu[1:]
        slots = first[:, None] + torch.arange(longest, dtype=cu.dtype, device=cu.device)
        # What is multiplied by 0 is of the same sample: should it be infinite, no other sample suffers.
        there = slots.minimum(end[:, None] - 1).clamp(min=0)
        tokens = torch.arange(num_tokens, dtype=cu.dtype, device=cu.device)
        sample = torch.bucketize(tokens, end, right=True, out_int32=True)
        owned = sample < num_samples
        sample = sample.clamp(max=num_samples - 1)
        back = (tokens - first[sample]).clamp(max=longest - 1) + sample * longest
        return cls(
            Rows(there.flatten(), (slots < end[:, None]).flatten()), Rows(back, owned), num_samples, longest
        )

    def pad(self, packed: Float[Tensor, "t ..."]) -> Float[Tensor, "b n ..."]:
        """Every sample's tokens, then zeros."""
        padded = _Moved.apply(packed, *self.there, *self.back)
        return padded.unflatten(0, (self.num_samples, self.longest))

    def pack(self, padded: Float[Tensor, "b n ..."]) -> Float[Tensor, "t ..."]:
        """The inverse of `pad`; tokens of no sample become 0."""
        return _Moved.apply(padded.flatten(0, 1), *self.back, *self.there)


class _Moved(torch.autograd.Function):
    """Rows by index. Those of the gradient have indices, too: adding them up where they belong is slower."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, *ways: Tensor) -> Tensor:
        ctx.save_for_backward(*ways)
        source, inside, *_ = ways
        if len(values) == 0:
            return values.new_zeros(len(source), *values.shape[1:])
        # A product, because filling by a mask takes ten times as long on a CPU.
        return values.index_select(0, source).mul_(inside.reshape(-1, *[1] * (values.dim() - 1)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        source, inside, back, back_inside = ctx.saved_tensors
        return _Moved.apply(grad, back, back_inside, source, inside), None, None, None, None
