"""What every target is: values to be predicted, located on a grid."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.losses.base import Loss
from maskpre.types import Grid, Located, Step, Taps


@dataclass(frozen=True)
class Layers:
    """Hidden layers that a target puts side by side: `chosen`, counted from 1, out of `depth`."""

    chosen: tuple[int, ...]
    depth: int


class Target(nn.Module, ABC):
    """Values per cell of `grid`; `dim` of them are to be predicted.

    `reads` are the views it looks at, with their channels. `taps` says what it reads of which passes, and
    `loss_of` names the objective whose loss per token it depends on. `layers` names the hidden layers that
    its values are, if they are any, and `gives_class` says whether it has values for the class token too. A
    target can bring its `loss`, which objectives then use instead of their own. `by_cell` says that its cells
    count as a whole, by the share that is in the region.
    """

    taps: Mapping[str, Taps] = {}
    loss_of: str | None = None
    layers: Layers | None = None
    gives_class: bool = False
    by_cell: bool = False

    def __init__(self, *, grid: Grid, dim: int, reads: Mapping[str, int]) -> None:
        super().__init__()
        self.grid, self.dim, self.reads = grid, dim, dict(reads)
        self.loss: Loss | None = None

    @property
    def value_weights(self) -> Float[Tensor, "k"] | None:
        """How much each value counts in the loss; None if all count alike."""
        return None

    @abstractmethod
    def forward(self, step: Step) -> Located:
        """The values for the batch of this step."""

    def at(self, step: Step, like: Located) -> Located:
        """The values at the cells of `like`, or at all cells where fewer are no less work."""
        return self(step)

    def compare(
        self, predicted: Float[Tensor, "b n d"], wanted: Float[Tensor, "b n j"]
    ) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n k"]]:
        """What the loss is given of predictions, `dim` wide, and of the values at the same cells."""
        return predicted, wanted

    def after_step(self) -> None:
        """What follows an optimiser step, for targets that learn."""


class PictureTarget(Target):
    """A target whose values can be turned back into a picture: the one that the step has as `view`."""

    view: str

    @abstractmethod
    def to_image(self, values: Float[Tensor, "b l k"], step: Step) -> Float[Tensor, "b c *size"]:
        """The picture or clip that values at all cells, in raster order, stand for, in the scale of the view.

        Statistics that the target took out are those of the step's own picture.
        """
