"""A masking of pictures repeated over the frames of clips."""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature

from maskpre.masking.base import Masking
from maskpre.types import Grid, Located, MaskPlan, Step, split_cells


def lift(grid: Grid, frames: Grid) -> Grid:
    """A grid of pictures as one of clips whose cells last as long as the clip on the grid `frames`."""
    return Grid((1, *grid.shape), (frames.input_size[0], *grid.stride))


class TubeMasking(Masking):
    """Hides the same cells in all frames: those that `spatial` hides in a picture.

    Tube masking (VideoMAE, Tong et al., NeurIPS 2022, section 3.3) if that is random. `spatial` makes any
    masking for a grid (rows, columns); predictions that it reads are averaged over time. Raises ValueError if
    the grid has no frames or `spatial` reads more than predictions.
    """

    def __init__(self, *, grid: Grid, spatial: Callable[..., Masking]) -> None:
        super().__init__(grid=grid)
        if len(grid.shape) != 3:
            raise ValueError(f"tubes need cells of (frames, rows, columns), the encoder's are {grid.shape}")
        self.flat = Grid(grid.shape[1:], grid.stride[1:])
        if "passes" in signature(spatial).parameters:
            raise ValueError(
                "a masking that reads the inside of another network has none for tubes; use "
                "masking@masking.spatial=random"
            )
        self.spatial = spatial(grid=self.flat)
        self.ragged, self.reads = self.spatial.ragged, self.spatial.reads

    def fit(self, grid: Grid) -> Grid:
        """See `Masking.fit`."""
        return lift(self.spatial.fit(Grid(grid.shape[1:], grid.stride[1:])), grid)

    def forward(self, step: Step) -> MaskPlan:
        """The spatial plan, repeated; visible cells are listed tube by tube."""
        plan = self.spatial(self._still(step))
        tubes = replace(plan, grid=lift(plan.grid, self.grid), unit=lift(plan.unit, self.grid))
        return tubes.on(self.grid)

    def _still(self, step: Step) -> Step:
        """The step as a masking of pictures can read it."""
        if self.reads is None:
            return step
        run, predictor = self.reads
        predicted = step.predictions[run][predictor]
        flat = Grid(predicted.grid.shape[1:], predicted.grid.stride[1:])
        values = split_cells(predicted.tokens, predicted.grid, lift(flat, predicted.grid)).mean(dim=2)
        return replace(step, predictions={run: {predictor: Located(values, flat)}})
