"""Random square units larger than a cell."""

import math

from maskpre.masking.base import Masking
from maskpre.types import Grid, MaskPlan, Step


class BlockUnitMasking(Masking):
    """Hides ceil(units * ratio) random units of `unit_size` pixels (SimMIM, Xie et al. 2022, section 3.2).

    The ceiling acts on the floating-point product as the official code's does: 100 units at 0.55 give 56.
    """

    def __init__(self, *, grid: Grid, ratio: float, unit_size: int = 32, stream: str = "mask") -> None:
        super().__init__(grid=grid)
        self.units = Grid.over(grid.input_size, (unit_size,) * len(grid.shape))
        self.units.refinement(grid)
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
