"""Hiding what is hard to reconstruct, more and more of it."""

from jaxtyping import Float
from torch import Tensor

from maskpre.masking.base import Masking, Reading, check_ratio, count_visible
from maskpre.nearest import divisors, nearest_number
from maskpre.ops.progress import epoch_of
from maskpre.types import Grid, MaskPlan, Step, split_cells


class HardPatchMasking(Masking):
    """Hides the cells of largest predicted loss, and random others, together a share `ratio` of all.

    HPM (Wang et al., CVPR 2023, section 3.3). Of the hidden cells, a share that goes from `start` to `end` is
    chosen by the loss that `predictor` predicted in the earlier pass `of`, which saw everything; the rest is
    random. In epoch e (from 0) of `epochs` the share is start + (end - start) * (e + 1) / epochs; with
    `epochs` None it follows the progress step by step. `start` = `end` keeps it constant. A share of less
    than one cell leaves the mask random.

    Chooses among the cells the losses are predicted for, or among units of `unit_size` pixels by their mean.
    """

    reads: Reading

    def __init__(
        self,
        *,
        grid: Grid,
        ratio: float = 0.75,
        start: float = 0.0,
        end: float = 0.5,
        epochs: float | None = None,
        unit_size: int | None = None,
        of: str = "ema",
        predictor: str = "losses",
        stream: str = "mask",
    ) -> None:
        super().__init__(grid=grid)
        self.ratio = check_ratio(ratio, num_cells=grid.num_cells)
        for name, share in (("start", start), ("end", end)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be a share between 0 and 1 of the hidden cells, got {share}")
        if epochs is not None and epochs <= 0:
            raise ValueError(f"epochs must be greater than 0, got {epochs}")
        self.start, self.end, self.epochs = start, end, epochs
        self.unit_size, self.stream = unit_size, stream
        self.reads = Reading(of, predictor)

    def fit(self, grid: Grid) -> Grid:
        """The units to choose among if losses are predicted on `grid`; ValueError if none would do."""
        units = grid
        if self.unit_size is not None:
            fitting = [unit for unit in divisors(grid.input_size[0]) if unit % grid.stride[0] == 0]
            if self.unit_size not in fitting:
                raise ValueError(
                    f"unit_size ({self.unit_size}) must be a multiple of the cells that losses are predicted "
                    f"for ({grid.stride[0]} pixels) and divide the picture ({grid.input_size[0]} pixels)"
                    f"{nearest_number(self.unit_size, fitting)}"
                )
            units = Grid.over(grid.input_size, (self.unit_size,) * len(grid.shape))
        check_ratio(self.ratio, num_cells=units.num_cells)
        return units

    def share(self, progress: float) -> float:
        """The share of the hidden cells that is chosen by predicted loss."""
        done = progress
        if self.epochs is not None:
            done = min((epoch_of(progress, self.epochs) + 1) / self.epochs, 1.0)
        return self.start + (self.end - self.start) * done

    def choose(self, losses: Float[Tensor, "b l"], step: Step, units: Grid) -> MaskPlan:
        """The plan from a predicted loss per unit."""
        num_visible = count_visible(units.num_cells, self.ratio)
        num_hidden = units.num_cells - num_visible
        num_hard = int(num_hidden * self.share(step.progress))
        scores = step.noise.uniform(self.stream, units.num_cells)
        hardest = losses.topk(num_hard, dim=1).indices
        order = scores.scatter(1, hardest, float("inf")).argsort(dim=1)
        mask = MaskPlan.from_order(order, num_visible=num_visible, grid=units).mask
        return MaskPlan.from_mask(mask, num_hidden=num_hidden, grid=units)

    def forward(self, step: Step) -> MaskPlan:
        """Rank the cells of every sample; ids are in raster order."""
        predicted = step.predictions[self.reads.run][self.reads.predictor]
        units = self.fit(predicted.grid)
        losses = split_cells(predicted.tokens[..., 0].float(), predicted.grid, units).mean(dim=2)
        return self.choose(losses, step, units).on(self.grid)
