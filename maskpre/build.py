"""The one place where components meet: from a configuration to a model, its data and its optimiser."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from maskpre.encoders.base import EncoderSpec
from maskpre.errors import UserError
from maskpre.masking.base import Masking
from maskpre.model import MaskedModel
from maskpre.objectives import Objective
from maskpre.passes import Pass
from maskpre.predictors.base import Predictor
from maskpre.targets.base import Target


def _named(node: DictConfig, group: str, **context: Any) -> dict[str, Any]:
    """Build every entry of a group, naming the entry in errors that the components raise."""
    built = {}
    for name, entry in node.items():
        built[str(name)] = _build(entry, f"{group}.{name}", **context)
    return built


def _build(entry: DictConfig, path: str, **context: Any) -> Any:
    try:
        part = instantiate(entry)
        return part(**context) if context else part
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _references(objectives: Mapping[str, Objective], passes: Mapping[str, Pass], cfg: DictConfig) -> None:
    """Refuse names that nothing carries."""
    known = {
        "predictors": set(cfg.predictors),
        "targets": set(cfg.targets),
        "maskings": set(cfg.maskings),
        "passes": set(cfg.passes),
        "networks": {"encoder", *cfg.teachers},
    }
    uses = [
        *((f"objectives.{n}.predictor", o.predictor, "predictors") for n, o in objectives.items()),
        *((f"objectives.{n}.target", o.target, "targets") for n, o in objectives.items()),
        *((f"objectives.{n}.plan", o.plan, "passes") for n, o in objectives.items()),
        *((f"passes.{n}.network", p.network, "networks") for n, p in passes.items()),
        *((f"passes.{n}.masking", p.masking, "maskings") for n, p in passes.items() if p.masking),
        *((f"passes.{n}.of", p.of, "passes") for n, p in passes.items() if p.of),
        *((f"passes.{n}.predictors", q, "predictors") for n, p in passes.items() for q in p.predictors),
    ]
    wrong = [
        f"{path}: {name!r} names none of {kind}; there are {sorted(known[kind])}"
        for path, name, kind in uses
        if name not in known[kind]
    ]
    if wrong:
        raise UserError("\n".join(wrong))


def _predictors(
    cfg: DictConfig, encoder: EncoderSpec, objectives: Mapping[str, Objective], targets: Mapping[str, Target]
) -> dict[str, Predictor]:
    """Each predictor predicts what the objectives that read it need, and no more."""
    predictors = {}
    for name, entry in cfg.predictors.items():
        readers = [objective for objective in objectives.values() if objective.predictor == name]
        regions = {objective.region for objective in readers} or {"all"}
        dims = {targets[objective.target].dim for objective in readers}
        if len(dims) != 1:
            raise UserError(
                f"predictors.{name}: the objectives that read it want targets of {sorted(dims)} values per "
                "cell; one predictor gives one size"
            )
        region = regions.pop() if len(regions) == 1 else "all"
        predictors[str(name)] = _build(
            entry, f"predictors.{name}", encoder=encoder, out_dim=dims.pop(), region=region
        )
    return predictors


def build_model(cfg: DictConfig) -> MaskedModel:
    """Compose the model that a validated training configuration describes.

    Raises UserError naming the configuration path where parts don't fit together.
    """
    encoder = _build(cfg.encoder, "encoder")
    spec: EncoderSpec = encoder.spec
    maskings: dict[str, Masking] = _named(cfg.maskings, "maskings", grid=spec.grid)
    targets: dict[str, Target] = _named(cfg.targets, "targets", grid=spec.out_grid)
    objectives: dict[str, Objective] = _named(cfg.objectives, "objectives")
    passes: dict[str, Pass] = _named(cfg.passes, "passes")
    _references(objectives, passes, cfg)
    model = MaskedModel(
        inputs=_build(cfg.inputs, "inputs"),
        encoder=encoder,
        maskings=maskings,
        predictors=_predictors(cfg, spec, objectives, targets),
        targets=targets,
        passes=passes,
        objectives=objectives,
        teachers=_named(cfg.teachers, "teachers"),
    )
    for part in (encoder, *model.predictors.values()):
        part.set_grad_checkpointing(cfg.activation_checkpointing)
        if cfg.compile:
            part.compile()
    return model
