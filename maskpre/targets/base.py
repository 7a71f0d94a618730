"""What every target is: values to be predicted, located on a grid."""

from abc import ABC, abstractmethod

from torch import nn

from maskpre.types import Grid, Located, Step


class Target(nn.Module, ABC):
    """Values per cell of `grid`; `dim` of them."""

    def __init__(self, *, grid: Grid, dim: int) -> None:
        super().__init__()
        self.grid, self.dim = grid, dim

    @abstractmethod
    def forward(self, step: Step) -> Located:
        """The values for the batch of this step."""
