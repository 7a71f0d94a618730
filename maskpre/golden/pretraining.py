"""Running a composed model on a pre-training case."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from maskpre.build import build_model
from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.golden.plans import GivenMasking, plan_tensors
from maskpre.model import MaskedModel
from maskpre.ops.noise import GivenNoise
from maskpre.types import Located, MaskPlan, Step, align


@dataclass(frozen=True)
class Experiment:
    """An experiment of this package with a case's sizes, its weights, and its noise or plan.

    `progress` is the share of the training done before the step.
    """

    case: Case
    config: DictConfig
    weights: Mapping[str, Tensor]
    noise: Mapping[str, Tensor] = field(default_factory=dict)
    plan: MaskPlan | None = None
    eps: float | None = None
    progress: float = 0.0

    def build(self, *, region: str = "masked") -> MaskedModel:
        """The model in float64 as it starts training; its objective reads `region`."""
        config = self.config.copy()
        config.objectives.main.region = region
        model = build(self.case, config)
        if self.plan is not None:
            model.maskings["main"] = GivenMasking(plan=self.plan)
        if self.eps is not None:
            set_norm_eps(model, self.eps)
        return model

    def load(self, model: MaskedModel) -> None:
        """Put the case's weights in."""
        load_strictly(model, self.weights, self.case)

    def run(self, model: MaskedModel) -> Step:
        """One step on the case's pictures."""
        return take_step(model, "image", self.case.input("imgs"), noise=self.noise, progress=self.progress)

    def predict_everywhere(self) -> Tensor:
        """Predictions at all cells in raster order; no gradients."""
        model = self.build(region="all")
        self.load(model)
        with torch.no_grad():
            prediction = self.run(model).predictions["student"]["main"]
        return align(prediction, like=Located(prediction.tokens, prediction.grid))


def experiment(case: Case, overrides: Sequence[str]) -> DictConfig:
    """The configuration the overrides give, with a run long enough for any schedule's warm-up."""
    try:
        return compose([*overrides, "epochs=800", *case.overrides])
    except ValueError as error:
        raise CannotReplayError(f"{case.name}: {error}") from error


def build(case: Case, config: DictConfig) -> MaskedModel:
    """The model in float64; CannotReplayError for what this package refuses."""
    try:
        return build_model(config).double()
    except UserError as error:
        raise CannotReplayError(f"{case.name}: {error}") from error


def take_step(
    model: MaskedModel,
    kind: Literal["image", "video"],
    samples: Tensor,
    *,
    noise: Mapping[str, Tensor],
    progress: float = 0.0,
) -> Step:
    """One step on given pictures or clips, with given draws by stream."""
    batch = {kind: samples, "index": torch.arange(len(samples)), "epoch": torch.zeros(len(samples))}
    step: Step = model(batch, noise=GivenNoise(dict(noise)), progress=progress)
    return step


def set_norm_eps(model: nn.Module, eps: float) -> None:
    """Give every layer norm the same epsilon."""
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], case: Case) -> None:
    """Load a state that must fit name by name and shape by shape."""
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CannotReplayError(f"{case.name}: the weights don't fit the model: {error}") from error


def step_tensors(step: Step, model: MaskedModel) -> Tensors:
    """Mask, ids, latent and target of a step, as MAE's code lays them out."""
    encoded = step.outputs["student"]
    assert encoded.prefix is not None
    return {
        **plan_tensors(step.plans["student"]),
        "latent": torch.cat([encoded.prefix, encoded.tokens], dim=1),
        "target": model.targets["main"](step).tokens,
    }


def position_tables(model: MaskedModel, weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The fixed tables a model starts with, beside the case's."""
    names = ("encoder.pos_embed", "predictors.main.pos_embed")
    return {name: (model.get_parameter(name).detach().clone(), weights[name]) for name in names}


def gradients(model: nn.Module) -> Tensors:
    """All gradients by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def official_gradients(case: Case) -> Tensors:
    """The case's gradients by official name."""
    return {
        name.removeprefix("grad/"): value for name, value in case.outputs.items() if name.startswith("grad/")
    }


def replay_experiment(
    run: Experiment,
    rename: Callable[[Mapping[str, Tensor]], Tensors],
    *,
    extras: Callable[[MaskedModel], Mapping[str, Any]] = lambda model: {},
) -> Replay:
    """A training step of an MAE: loss, gradients, latent, tables, and predictions at all cells."""
    model = run.build()
    tables = position_tables(model, run.weights)
    run.load(model)
    step = run.run(model)
    assert step.total is not None
    step.total.backward()
    return Replay(
        loss=step.total,
        losses={"pixel": step.losses["main"]},
        tensors={**step_tensors(step, model), "pred": run.predict_everywhere()},
        gradients=gradients(model),
        expected_gradients=rename(official_gradients(run.case)),
        extras=extras(model),
        also=tables,
    )
