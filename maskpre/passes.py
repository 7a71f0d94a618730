"""One network on one view under one plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from maskpre.encoders.base import Encoder
from maskpre.masking.base import Masking
from maskpre.predictors.base import Predictor
from maskpre.types import MaskPlan, Step


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Runs `network` on `view` and then, in order, the `predictors` that read its output.

    `masking` names the masking that makes the plan; None shows the network everything; with `of` the plan is
    taken from an earlier pass instead: the same one, or its complement. `grad` False runs without gradients.
    """

    network: str = "encoder"
    view: str = "image"
    masking: str | None = "main"
    of: str | None = None
    plan: Literal["same", "complement"] = "same"
    predictors: tuple[str, ...] = ()
    grad: bool = True

    def choose_plan(self, step: Step, maskings: Mapping[str, Masking]) -> MaskPlan | None:
        """Make the plan or take an earlier pass's."""
        if self.of is not None:
            earlier = step.plans[self.of]
            return earlier.complement() if self.plan == "complement" else earlier
        return None if self.masking is None else maskings[self.masking](step)

    def __call__(
        self,
        name: str,
        step: Step,
        *,
        networks: Mapping[str, Encoder],
        maskings: Mapping[str, Masking],
        predictors: Mapping[str, Predictor],
    ) -> None:
        """Store plan, output and predictions in the step."""
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            plan = self.choose_plan(step, maskings)
            if plan is not None:
                step.plans[name] = plan
            step.outputs[name] = networks[self.network](step.views[self.view], plan, step.noise)
            for key in self.predictors:
                step.predictions[key] = predictors[key](step.outputs[name], plan, step)
