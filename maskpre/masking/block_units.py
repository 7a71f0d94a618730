"""Random square units larger than a cell."""

import math

from maskpre.masking.base import Masking
from maskpre.nearest import divisors, nearest_number
from maskpre.types import Grid, MaskPlan, Step


def _check_unit(unit_size: int, grid: Grid) -> None:
    """Refuse units that don't tile the picture or cut the encoder's cells, naming the nearest that fit."""
    for size, stride in zip(grid.input_size, grid.stride, strict=True):
        fitting = [unit for unit in divisors(size) if unit % stride == 0]
        if unit_size not in fitting:
            raise ValueError(
                f"unit_size ({unit_size}) must be a multiple of the encoder's cells ({stride} pixels) and "
                f"divide the picture ({size} pixels){nearest_number(unit_size, fitting)}"
            )


class BlockUnitMasking(Masking):
    """Hides ceil(units * ratio) random units of `unit_size` pixels (SimMIM, Xie et al. 2022, section 3.2).

    The ceiling acts on the floating-point product as the official code's does: 100 units at 0.55 give 56.
    """

    def __init__(self, *, grid: Grid, ratio: float, unit_size: int = 32, stream: str = "mask") -> None:
        super().__init__(grid=grid)
        _check_unit(unit_size, grid)
        self.units = Grid.over(grid.input_size, (unit_size,) * len(grid.shape))
        self.num_hidden = math.ceil(self.units.num_cells * ratio)
        if not 0.0 < ratio < 1.0 or self.num_hidden >= self.units.num_cells:
            raise ValueError(
                f"mask ratio {ratio} hides {self.num_hidden} of {self.units.num_cells} units of {unit_size} "
                "pixels; at least one must be hidden and one visible"
            )
        self.stream = stream

    def forward(self, step: Step) -> MaskPlan:
        """Hide the units that come first in a random permutation."""
        order = step.noise.uniform(self.stream, self.units.num_cells).argsort(dim=1)
        plan = MaskPlan.from_order(order, num_visible=self.num_hidden, grid=self.units).complement()
        return plan.on(self.grid)
