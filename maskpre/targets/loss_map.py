"""What another objective lost, token by token, as a target."""

from maskpre.targets.base import Target
from maskpre.types import Grid, Located, Step


class LossMapTarget(Target):
    """The loss per token of the objective `objective`, which runs before; no gradient flows back to it.

    HPM's loss predictor learns it (Wang et al., CVPR 2023, section 3.2).
    """

    loss_of: str

    def __init__(self, *, grid: Grid, objective: str = "main") -> None:
        super().__init__(grid=grid, dim=1, reads={})
        self.loss_of = objective

    def forward(self, step: Step) -> Located:
        """The map, at the tokens where the objective had predictions."""
        found = step.loss_maps[self.loss_of]
        return Located(found.tokens.detach(), found.grid, found.ids, found.covers, lengths=found.lengths)
