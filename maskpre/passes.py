"""One network on one view under one plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from maskpre.encoders.base import Encoder
from maskpre.masking.base import Masking
from maskpre.predictors.base import Predictor
from maskpre.types import OUTPUT, MaskPlan, Step, Taps


@dataclass(frozen=True)
class Network:
    """What a pass can run: an encoder, and the predictors that go with it."""

    encoder: Encoder
    predictors: Mapping[str, Predictor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Runs `network` on `view` and then, in order, those of its `predictors` that are named; None means all.

    `view` None is the first that the inputs make.
    `masking` names the masking that makes the plan; None shows the network everything; with `of` the plan is
    taken from an earlier pass instead: the same one, or its complement. `grad` False runs without gradients.
    A pass whose network is a teacher that isn't chosen is left out.
    """

    network: str = "encoder"
    view: str | None = None
    masking: str | None = "main"
    of: str | None = None
    plan: Literal["same", "complement"] = "same"
    predictors: tuple[str, ...] | None = ()
    grad: bool = True

    def view_among(self, views: Mapping[str, object]) -> str:
        """The view it runs on, out of those there are."""
        return next(iter(views)) if self.view is None else self.view

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
        networks: Mapping[str, Network],
        maskings: Mapping[str, Masking],
        taps: Taps,
    ) -> None:
        """Store plan, output and predictions in the step; of the network only `taps` is asked for."""
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            plan = self.choose_plan(step, maskings)
            if plan is not None:
                step.plans[name] = plan
            network = networks[self.network]
            given = (
                step.views[self.view_among(step.views)],
                plan,
                step.noise,
                *(() if taps == OUTPUT else (taps,)),
            )
            encoded = step.outputs[name] = network.encoder(*given)
            made = step.predictions[name] = {}
            chosen = network.predictors if self.predictors is None else self.predictors
            owners = {key: network.predictors[key].input_of for key in chosen}
            shared = {
                owner: network.predictors[owner].prepare(encoded)
                for owner in owners.values()
                if owner is not None
            }
            for key, owner in owners.items():
                source = shared.get(key if owner is None else owner, encoded)
                made[key] = network.predictors[key](source, plan, step)
