"""Uniformly random cells."""

from jaxtyping import Float
from torch import Tensor

from maskpre.masking.base import ScoreMasking
from maskpre.types import Step


class RandomMasking(ScoreMasking):
    """Hides a random share `ratio` of the cells of every sample (MAE, He et al. 2022, section 3)."""

    def scores(self, step: Step) -> Float[Tensor, "b l"]:
        """Uniform noise."""
        return step.noise.uniform(self.stream, self.grid.num_cells)
