"""What every encoder is, and what the other parts may know of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.types import OUTPUT, Encoded, Grid, MaskPlan, Noise, Taps

Hidden = Literal["drop", "replace"]


@dataclass(frozen=True)
class MapSpec:
    """A feature map that an encoder gives beside its tokens: its channels, and the pixels per position."""

    channels: int
    stride: int


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder needs and gives.

    `grid` is the grid plans are applied on, `out_grid` that of the tokens that come out. `hidden` says what
    happens to hidden cells: "drop" removes them, "replace" puts a mask token there, "sparse" removes them and
    leaves them empty in all feature maps. `maps` are the feature maps, finest first.

    Of a `TappedEncoder`, `num_layers` hidden layers of width `layer_dim` can be read, and if
    `class_attention`, the class token's attention in each. `packs` says whether visible cells of samples
    that differ in their number can be run one sample after another.
    """

    embed_dim: int
    grid: Grid
    out_grid: Grid
    num_prefix_tokens: int
    in_chans: int
    hidden: Hidden | Literal["sparse"]
    maps: tuple[MapSpec, ...] = ()
    num_layers: int = 0
    layer_dim: int = 0
    class_attention: bool = False
    packs: bool = False

    @property
    def takes_ragged(self) -> bool:
        """Whether it can run where samples differ in the number of visible cells."""
        return self.hidden == "replace" or self.packs

    @property
    def omits_hidden(self) -> bool:
        """Whether hidden cells have no token."""
        return self.hidden != "replace"


class Encoder(nn.Module, ABC):
    """A network that reads a picture, or a clip, under a mask plan. Parameters carry timm's names."""

    spec: EncoderSpec

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b c *size"], plan: MaskPlan | None = None, noise: Noise | None = None
    ) -> Encoded:
        """Encode what the plan leaves visible; without a plan, everything.

        `noise` decides stochastic depth in training; without it no block is skipped.
        """

    @property
    def units(self) -> Sequence[nn.Module]:
        """Blocks that nothing but `run_blocks` and `inside` runs: where weights are divided among ranks, they
        are gathered one after another. The encoder's other weights are gathered as long as it runs.
        """
        return ()

    @abstractmethod
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass instead of storing them."""


class TappedEncoder(Encoder):
    """An encoder whose hidden layers and class-token attention can be read; see `Taps`."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "b c *size"],
        plan: MaskPlan | None = None,
        noise: Noise | None = None,
        taps: Taps = OUTPUT,
    ) -> Encoded:
        """See `Encoder.forward`; only what `taps` needs is computed."""

    def freeze_unread(self, taps: Taps) -> None:
        """Stop training the parameters that never act on what `taps` reads, as they get no gradient."""
