"""Uniformly random cells, more of them in some samples than in others."""

from maskpre.masking.base import Masking, check_ratio, count_visible
from maskpre.types import Grid, MaskPlan, Step


class VariableRatioMasking(Masking):
    """Hides random cells of every sample, a share that is itself random between `low` and `high`.

    MaskGIT (Chang et al., CVPR 2022, section 3.2) and MAGE (Li et al., CVPR 2023, section 3.2) train with
    ratios that vary; theirs are drawn from a cosine and a truncated normal distribution, ours uniformly from
    the numbers of visible cells that the two ratios leave.
    """

    ragged = True

    def __init__(self, *, grid: Grid, low: float = 0.6, high: float = 0.9, stream: str = "mask") -> None:
        super().__init__(grid=grid)
        if low >= high:
            raise ValueError(
                f"low ({low}) must be less than high ({high}); masking=random hides the same share everywhere"
            )
        most, fewest = (
            count_visible(grid.num_cells, check_ratio(ratio, num_cells=grid.num_cells))
            for ratio in (low, high)
        )
        self.bounds, self.stream = (fewest, most), stream

    def forward(self, step: Step) -> MaskPlan:
        """Draw the number of visible cells of each sample, then which they are."""
        fewest, most = self.bounds
        share = step.noise.uniform(f"{self.stream}/ratio", 1)[:, 0]
        lengths = fewest + (share * (most - fewest + 1)).long().clamp(max=most - fewest)
        order = step.noise.uniform(self.stream, self.grid.num_cells).argsort(dim=1)
        return MaskPlan.from_lengths(order, lengths=lengths, bounds=self.bounds, grid=self.grid)
