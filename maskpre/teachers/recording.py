"""What a pass gave, as plain tensors that can lie on disk, and back."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from maskpre.data.records import Precision
from maskpre.encoders.base import EncoderSpec
from maskpre.types import Encoded, Taps


@dataclass(frozen=True)
class Recording:
    """What `taps` reads of the pass `run` over whole pictures, whose network gives `spec`.

    The entries are "RUN.output", "RUN.hidden.LAYER", each (b, p + l, d) with the prefix first, and
    "RUN.attention.LAYER" (b, heads, p + l).
    """

    run: str
    spec: EncoderSpec
    taps: Taps

    @property
    def names(self) -> tuple[str, ...]:
        """The entries."""
        output = [f"{self.run}.output"] if self.taps.output else []
        hidden = [f"{self.run}.hidden.{layer}" for layer in sorted(self.taps.hidden)]
        return (*output, *hidden, *self._attention)

    @property
    def _attention(self) -> list[str]:
        return [f"{self.run}.attention.{layer}" for layer in sorted(self.taps.attention)]

    def formats(self, precision: Precision) -> dict[str, Precision]:
        """How the entries are kept: attention, whose small shares decide masks, always in float32."""
        return {name: "fp32" if name in self._attention else precision for name in self.names}

    def pack(self, encoded: Encoded) -> dict[str, Tensor]:
        """The entries."""
        prefix = [] if encoded.prefix is None else [encoded.prefix]
        made = {f"{self.run}.output": torch.cat([*prefix, encoded.tokens], dim=1)}
        made |= {f"{self.run}.hidden.{layer}": value for layer, value in encoded.hidden.items()}
        made |= {f"{self.run}.attention.{layer}": value for layer, value in encoded.attention.items()}
        return {name: made[name] for name in self.names}

    def is_in(self, batch: Mapping[str, Tensor]) -> bool:
        """Whether a batch has been given the entries."""
        return all(name in batch for name in self.names)

    def unpack(self, batch: Mapping[str, Tensor]) -> Encoded:
        """The output that the entries of a batch stand for; without "output" its tokens have no width."""
        first, split = batch[self.names[0]], self.spec.num_prefix_tokens
        tokens = batch.get(f"{self.run}.output")
        if tokens is None:
            tokens = first.new_zeros(len(first), split + self.spec.out_grid.num_cells, 0)
        return Encoded(
            tokens[:, split:],
            self.spec.out_grid,
            prefix=tokens[:, :split] if split else None,
            hidden={layer: batch[f"{self.run}.hidden.{layer}"] for layer in self.taps.hidden},
            attention={layer: batch[f"{self.run}.attention.{layer}"] for layer in self.taps.attention},
        )
