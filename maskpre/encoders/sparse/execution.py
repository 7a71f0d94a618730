"""How the layers of a stage are computed under a plan: the seam between a network and a way to run it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.encoders.sparse.layers import Kind

Pointwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Feature:
    """What flows from layer to layer: numbers, laid out as the execution that made them likes.

    `channels_last` says that the network has moved the channels from the second place to the end.
    """

    data: Tensor
    channels_last: bool = False


class Execution(ABC):
    """Computes layers on one batch under one plan. Made anew for every forward; it holds no parameters.

    Every execution gives the same values at visible positions; each has its own `Feature`, and `enter` and
    `leave` lead from and to plain maps. `knows` are the kinds of layers it can run. While `again` is set,
    layers run a second time on the same numbers: running statistics stay as they are.
    """

    knows: ClassVar[frozenset[Kind]] = frozenset(Kind) - {Kind.SQUEEZE}
    again: bool = False

    @abstractmethod
    def enter(self, x: Float[Tensor, "b c h w"]) -> Any:
        """A feature from a plain map; what the map holds at hidden positions doesn't matter."""

    @abstractmethod
    def leave(self, feature: Any) -> Float[Tensor, "b c h w"]:
        """The plain map of a feature, with zeros at hidden positions."""

    @abstractmethod
    def window(self, layer: nn.Module, feature: Any) -> Any:
        """A convolution or pool. Hidden positions, and those outside the picture, count as zeros."""

    @abstractmethod
    def point(self, layer: Pointwise, feature: Any, *, keeps_zero: bool) -> Any:
        """A function of each position alone; `keeps_zero` if it makes zero of zero."""

    @abstractmethod
    def batch(self, layer: nn.Module, feature: Any) -> Any:
        """A batch norm over the visible positions of the batch."""

    @abstractmethod
    def sample(self, layer: nn.Module, feature: Any) -> Any:
        """A layer that reads all visible positions of its own sample."""

    @abstractmethod
    def join(self, function: Callable[[Sequence[Tensor]], Tensor], features: Sequence[Any]) -> Any:
        """Several features of the same positions: their sum or concatenation."""

    @abstractmethod
    def weigh(self, feature: Any, factors: Float[Tensor, "b"]) -> Any:
        """Every sample times its factor."""

    @abstractmethod
    def turn(self, feature: Any, order: tuple[int, ...]) -> Any:
        """The feature with its channels moved."""

    def squeeze(self, feature: Any) -> Float[Tensor, "b c 1 1"]:
        """One average per sample and channel; only of executions that know `Kind.SQUEEZE`."""
        raise TypeError(f"{type(self).__name__} averages over no picture; see `Program.check`")
