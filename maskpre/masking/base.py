"""What every masking is: a function from a step to a plan."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.types import Grid, MaskPlan, Step, Taps


def count_visible(num_cells: int, ratio: float) -> int:
    """Cells left visible: int(num_cells * (1 - ratio)), the same double-precision expression as MAE's."""
    return int(num_cells * (1 - ratio))


def check_ratio(ratio: float, *, num_cells: int) -> float:
    """Refuse a ratio that hides nothing or everything, naming the counts."""
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"mask ratio must be between 0 and 1, got {ratio}")
    if not 0 < count_visible(num_cells, ratio) < num_cells:
        raise ValueError(
            f"mask ratio {ratio} leaves {count_visible(num_cells, ratio)} of {num_cells} cells visible; "
            "at least one must be visible and one hidden"
        )
    return ratio


def plan_from_scores(scores: Float[Tensor, "b l"], *, num_visible: int, grid: Grid) -> MaskPlan:
    """The `num_visible` cells with the smallest scores stay visible, in ascending order of score."""
    return MaskPlan.from_order(scores.argsort(dim=1), num_visible=num_visible, grid=grid)


class Reading(NamedTuple):
    """What `predictor` said in the pass `run`."""

    run: str
    predictor: str


class Masking(nn.Module, ABC):
    """Chooses which cells of the encoder's grid are hidden.

    `taps` says what it reads of which passes, and `reads` names predictions of a pass that saw everything;
    those passes run first.
    """

    taps: Mapping[str, Taps] = {}
    reads: Reading | None = None

    def __init__(self, *, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def fit(self, grid: Grid) -> Grid:
        """The units to choose among if what is read lies on `grid`; ValueError if there is no such choice."""
        return grid

    @abstractmethod
    def forward(self, step: Step) -> MaskPlan:
        """The plan for the batch of this step."""


class ScoreMasking(Masking):
    """A masking that scores every cell; the lowest scores stay visible.

    `stream` names the noise it draws, so that two maskings of one run can differ or agree.
    """

    def __init__(self, *, grid: Grid, ratio: float, stream: str = "mask") -> None:
        super().__init__(grid=grid)
        self.ratio = check_ratio(ratio, num_cells=grid.num_cells)
        self.stream = stream

    @abstractmethod
    def scores(self, step: Step) -> Float[Tensor, "b l"]:
        """One number per cell."""

    def forward(self, step: Step) -> MaskPlan:
        """Rank the scores of every sample."""
        num_visible = count_visible(self.grid.num_cells, self.ratio)
        return plan_from_scores(self.scores(step), num_visible=num_visible, grid=self.grid)
