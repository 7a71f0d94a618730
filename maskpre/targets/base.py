"""What every target is: values to be predicted, located on a grid."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import nn

from maskpre.types import Grid, Located, Step


class Target(nn.Module, ABC):
    """Values per cell of `grid`; `dim` of them. `reads` are the views it looks at, with their channels."""

    def __init__(self, *, grid: Grid, dim: int, reads: Mapping[str, int]) -> None:
        super().__init__()
        self.grid, self.dim, self.reads = grid, dim, dict(reads)

    @abstractmethod
    def forward(self, step: Step) -> Located:
        """The values for the batch of this step."""
