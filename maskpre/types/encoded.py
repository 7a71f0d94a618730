"""An encoder's output, and what to ask an encoder for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from maskpre.types.located import Located


@dataclass(frozen=True, kw_only=True)
class Taps:
    """What is read of a network beside or instead of its final tokens.

    `hidden` counts layers from 0, what enters the first block, to the depth, what leaves the last one, before
    the final norm. `attention` names layers, from 1, whose attention from the class token to all tokens is
    read; `output` says whether the final tokens are.
    """

    hidden: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    output: bool = False

    def __or__(self, other: "Taps") -> "Taps":
        """What either reads."""
        return Taps(
            hidden=self.hidden | other.hidden,
            attention=self.attention | other.attention,
            output=self.output or other.output,
        )

    def num_blocks(self, depth: int) -> int:
        """How many of `depth` blocks must run for it; a row of attention needs only what enters its block."""
        return max({0, *self.hidden, *(layer - 1 for layer in self.attention), depth * self.output})


OUTPUT = Taps(output=True)


@dataclass(frozen=True)
class Encoded(Located):
    """An encoder's output: patch tokens where they live, prefix tokens, feature maps and what was tapped.

    `hidden` and `attention` hold what `Taps` asked for, by layer: all tokens with the prefix first, and the
    class token's attention to them per head. Where nobody reads the output, the tokens are those of the last
    layer that ran, without final norm.
    """

    maps: tuple[Tensor, ...] = ()
    hidden: Mapping[int, Float[Tensor, "b n d"]] = field(default_factory=dict)
    attention: Mapping[int, Float[Tensor, "b k n"]] = field(default_factory=dict)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before those of the cells."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    def at_layer(self, layer: int) -> Located:
        """A hidden layer that was tapped, where its tokens live."""
        tokens, split = self.hidden[layer], self.num_prefix_tokens
        prefix, cells = tokens[:, :split], tokens[:, split:]
        return Located(cells, self.grid, self.ids, self.covers, prefix, self.lengths)

    def pooled(self, pool: Literal["cls", "avg"]) -> Float[Tensor, "b d"]:
        """One vector per sample: the class token, or the mean of the patch tokens that count."""
        if pool == "avg" and self.lengths is not None:
            counted = cast(Tensor, self.counted)[..., None]
            return torch.where(counted, self.tokens, 0).sum(dim=1) / self.lengths[:, None]
        if pool == "avg":
            return self.tokens.mean(dim=1)
        if self.prefix is None or self.prefix.shape[1] == 0:
            raise ValueError("pool is 'cls', but the encoder has no class token; use 'avg'")
        return self.prefix[:, 0]
