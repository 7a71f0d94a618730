"""Visible cells of samples that differ in their number, one sample after another and none in vain."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from maskpre.encoders.attend import Packing
from maskpre.types import MaskPlan


def _counts_are_at_hand(lengths: Tensor) -> bool:
    """Whether no device has to be waited for, and no compiled program depends on them."""
    return lengths.device.type == "cpu" and not torch.compiler.is_compiling()


def _starts(lengths: Int[Tensor, "b"]) -> Int[Tensor, "b+1"]:
    return pad(lengths.cumsum(0), (1, 0))


@dataclass(frozen=True, kw_only=True)
class RaggedTokens:
    """Where the tokens of a ragged plan lie when samples are packed, each with its prefix first.

    Of every cell, packed, `sample` is the sample it comes from and `cell` its id there. `order` picks the
    packed tokens from all prefixes followed by all cells, `row` is where they stand in samples made equally
    long. Room that a bound leaves is filled with samples of no meaning, which are never looked at.
    """

    packing: Packing
    num_prefix: int
    lengths: Int[Tensor, "b"]
    sample: Int[Tensor, "c"]
    cell: Int[Tensor, "c"]
    order: Int[Tensor, "t"]
    row: Int[Tensor, "t"]

    @classmethod
    def of(cls, plan: MaskPlan, *, num_prefix: int) -> "RaggedTokens":
        """The layout of the plan's visible cells; AssertionError unless the plan is ragged."""
        assert plan.lengths is not None
        batch, most = plan.keep.shape
        exact = _counts_are_at_hand(plan.lengths)
        num_cells = int(plan.lengths.sum()) if exact else batch * most
        # Cells: what lies behind the last sample's is any cell of it.
        starts, packed = _starts(plan.lengths), torch.arange(num_cells, device=plan.keep.device)
        sample = torch.bucketize(packed, starts[1:], right=True).clamp(max=batch - 1)
        cell = plan.keep[sample, (packed - starts[sample]).clamp(max=most - 1)]
        # Tokens: those behind the last sample's belong to sample number `batch`.
        longest, starts = num_prefix + most, _starts(plan.lengths + num_prefix)
        tokens = torch.arange(num_cells + batch * num_prefix, device=plan.keep.device)
        owner = torch.bucketize(tokens, starts[1:], right=True)
        place = tokens - starts[owner]
        first = (place < num_prefix) & (owner < batch)
        from_cells = tokens + num_prefix * (batch - 1 - owner.clamp(max=batch - 1))
        cu = starts if exact else _with_rest(starts, len(tokens), longest)
        return cls(
            packing=Packing(cu=cu.int(), longest=longest, sample=owner.clamp(max=batch - 1)),
            num_prefix=num_prefix,
            lengths=plan.lengths,
            sample=sample,
            cell=cell,
            order=torch.where(first, owner * num_prefix + place, from_cells),
            row=torch.where(owner < batch, owner * longest + place, batch * longest),
        )

    def join(
        self, prefix: Float[Tensor, "b p d"] | None, cells: Float[Tensor, "c d"]
    ) -> Float[Tensor, "1 t d"]:
        """All tokens, packed."""
        parts = [cells] if prefix is None else [prefix.flatten(0, 1), cells]
        return torch.cat(parts).index_select(0, self.order)[None]

    def split(self, tokens: Float[Tensor, "1 t d"]) -> Float[Tensor, "b n d"]:
        """Packed tokens by sample, zeros behind the shorter ones'."""
        batch, longest = len(self.lengths), self.packing.longest
        rows = tokens.new_zeros(batch * longest + 1, tokens.shape[2])
        return rows.index_copy(0, self.row, tokens[0])[:-1].unflatten(0, (batch, longest))


def _with_rest(starts: Int[Tensor, "b+1"], num_tokens: int, longest: int) -> Int[Tensor, "s"]:
    """Where samples begin, followed by further ones that share what is left, none longer than `longest`."""
    steps = torch.arange(1, -(-num_tokens // longest) + 1, device=starts.device)
    return torch.cat([starts, (starts[-1] + longest * steps).clamp(max=num_tokens)])
