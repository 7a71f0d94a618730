"""Mask plans that were made elsewhere."""

import torch

from maskpre.golden.case import Tensors
from maskpre.masking.base import Masking
from maskpre.types import MaskPlan, Step


class GivenMasking(Masking):
    """Replays a plan made elsewhere."""

    def __init__(self, *, plan: MaskPlan) -> None:
        super().__init__(grid=plan.grid)
        self.plan = plan

    def forward(self, step: Step) -> MaskPlan:
        """The given plan."""
        return self.plan


def plan_tensors(plan: MaskPlan) -> Tensors:
    """Mask and ids as MAE's code lays them out."""
    order = torch.cat([plan.keep, plan.hide], dim=1)
    return {"mask": plan.mask.double(), "ids_keep": plan.keep, "ids_restore": order.argsort(dim=1)}
