"""Regular grid of visible cells."""

from typing import Literal

import torch

from maskpre.masking.base import Masking
from maskpre.types import Grid, MaskPlan, Step


class GridMasking(Masking):
    """Keeps one cell of every `period` x `period` square (MAE, He et al. 2022, table 1f).

    `offset` "fixed" always keeps a square's first cell, "random" the same random cell in all squares of a
    sample.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        period: int = 2,
        offset: Literal["fixed", "random"] = "fixed",
        stream: str = "mask",
    ) -> None:
        super().__init__(grid=grid)
        if period < 2 or any(size % period for size in grid.shape):
            raise ValueError(f"period must be at least 2 and divide {grid.shape}, got {period}")
        if offset not in ("fixed", "random"):
            raise ValueError(f"offset must be 'fixed' or 'random', got {offset!r}")
        self.period, self.offset, self.stream = period, offset, stream

    def forward(self, step: Step) -> MaskPlan:
        """The visible cells repeat with the period along every axis."""
        coords = torch.meshgrid(
            *(torch.arange(n, device=step.batch["index"].device) for n in self.grid.shape), indexing="ij"
        )
        dims = len(self.grid.shape)
        shift = torch.zeros(step.batch["index"].shape[0], dims, device=coords[0].device, dtype=torch.int64)
        if self.offset == "random":
            shift = (step.noise.uniform(self.stream, dims) * self.period).long()
        phases = torch.stack([axis.flatten() for axis in coords], dim=-1)[None] % self.period
        mask = (phases != shift[:, None]).any(dim=-1)
        num_visible = self.grid.num_cells // self.period**dims
        return MaskPlan.from_mask(mask, num_hidden=self.grid.num_cells - num_visible, grid=self.grid)
