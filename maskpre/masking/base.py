"""What every masking is: a function from a step to a plan."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.types import Grid, MaskPlan, Step, Taps

Rounding = Literal["down", "nearest", "up"]


def count_visible(num_cells: int, ratio: float, rounding: Rounding = "down") -> int:
    """Cells left visible: num_cells * (1 - ratio), the same double-precision expression as MAE's.

    `rounding` "down" is MAE's, "nearest" SparK's, which takes the even number of two as near, "up"
    VideoMAE's, which rounds the number of hidden cells, num_cells * ratio, down.
    """
    if rounding == "up":
        return num_cells - int(ratio * num_cells)
    visible = num_cells * (1 - ratio)
    return round(visible) if rounding == "nearest" else int(visible)


def check_ratio(ratio: float, *, num_cells: int, rounding: Rounding = "down") -> float:
    """Refuse a ratio that hides nothing or everything, naming the counts."""
    if rounding not in ("down", "nearest", "up"):
        raise ValueError(f"rounding must be 'down', 'nearest' or 'up', got {rounding!r}")
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"mask ratio must be between 0 and 1, got {ratio}")
    num_visible = count_visible(num_cells, ratio, rounding)
    if not 0 < num_visible < num_cells:
        raise ValueError(
            f"mask ratio {ratio} leaves {num_visible} of {num_cells} cells visible; "
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
    those passes run first. `ragged` says whether samples may differ in the number of visible cells, and
    `regions` which further regions its plans name.
    """

    ragged: bool = False
    regions: Sequence[str] = ()
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

    `rounding` makes the number of visible cells whole (see `count_visible`). `stream` names the noise it
    draws, so that two maskings of one run can differ or agree.
    """

    def __init__(
        self, *, grid: Grid, ratio: float, rounding: Rounding = "down", stream: str = "mask"
    ) -> None:
        super().__init__(grid=grid)
        self.ratio = check_ratio(ratio, num_cells=grid.num_cells, rounding=rounding)
        self.rounding, self.stream = rounding, stream

    @abstractmethod
    def scores(self, step: Step) -> Float[Tensor, "b l"]:
        """One number per cell."""

    def forward(self, step: Step) -> MaskPlan:
        """Rank the scores of every sample."""
        num_visible = count_visible(self.grid.num_cells, self.ratio, self.rounding)
        return plan_from_scores(self.scores(step), num_visible=num_visible, grid=self.grid)
