"""Mask plans and targets that were made elsewhere."""

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from maskpre.golden.case import Tensors
from maskpre.masking.base import Masking
from maskpre.targets.base import Target
from maskpre.types import Grid, Located, MaskPlan, Step


class GivenMasking(Masking):
    """Replays a plan made elsewhere."""

    def __init__(self, *, plan: MaskPlan) -> None:
        super().__init__(grid=plan.grid)
        self.plan = plan

    def forward(self, step: Step) -> MaskPlan:
        """The given plan."""
        return self.plan


class GivenTarget(Target):
    """Replays `values` (b, l, k) made elsewhere."""

    values: Tensor

    def __init__(self, *, grid: Grid, dim: int) -> None:
        super().__init__(grid=grid, dim=dim, reads={})

    def forward(self, step: Step) -> Located:
        """The given values."""
        return Located(self.values, self.grid)


def given_target(dim: int) -> DictConfig:
    """The configuration of a `GivenTarget`."""
    path = f"{GivenTarget.__module__}.{GivenTarget.__qualname__}"
    return OmegaConf.create({"_target_": path, "_partial_": True, "dim": dim})


def plan_tensors(plan: MaskPlan) -> Tensors:
    """Mask and ids as MAE's code lays them out."""
    order = torch.cat([plan.keep, plan.hide], dim=1)
    return {"mask": plan.mask.double(), "ids_keep": plan.keep, "ids_restore": order.argsort(dim=1)}
