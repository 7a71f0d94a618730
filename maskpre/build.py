"""The one place where components meet: from a configuration to a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from inspect import signature
from operator import or_
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from maskpre.compatibility import (
    missing_class_tokens,
    unfit_for_ragged,
    unknown_names,
    unknown_regions,
    unlike_pictures,
)
from maskpre.dependencies import (
    in_order,
    missing_predictors,
    unknown_losses,
    unmet_maskings,
    unshared_inputs,
)
from maskpre.encoders.base import Encoder, EncoderSpec, TappedEncoder
from maskpre.errors import ConfigError, Problem, config_path
from maskpre.inputs import Inputs
from maskpre.masking.base import Masking
from maskpre.model import MaskedModel
from maskpre.objectives import Objective
from maskpre.passes import Network, Pass
from maskpre.predictors.base import Predictor
from maskpre.reading import collect_taps, order_passes, unread_passes
from maskpre.targets.base import Target
from maskpre.teachers.ema import EmaTeacher
from maskpre.types import WITH_CLASS, Taps, split_region


@dataclass
class Assembly:
    """Builds parts and collects what they refuse, so that all of it can be told at once."""

    problems: list[Problem] = field(default_factory=list)

    def part(self, entry: DictConfig, **context: Any) -> Any:
        """The part that a node describes, given what it asks for of `context`; None if it refuses.

        Only a ValueError counts as a refusal; any other error passes through.
        """
        try:
            made = instantiate(entry)
            if not context:
                return made
            asked = signature(made).parameters
            return made(**{name: value for name, value in context.items() if name in asked})
        except InstantiationException as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            where = re.search(r"full_key: (\S+)", str(error))
            self.problems.append(Problem(where[1] if where else config_path(entry), str(error.__cause__)))
        except ValueError as error:
            self.problems.append(Problem(config_path(entry), str(error)))
        return None

    def parts(self, group: DictConfig, **context: Any) -> dict[str, Any]:
        """Every entry of a group by name; those that are null stand for nothing."""
        chosen = {str(name): entry for name, entry in group.items() if entry is not None}
        return {name: self.part(entry, **context) for name, entry in chosen.items()}

    def settle(self) -> None:
        """Raise ConfigError if anything was refused so far."""
        if self.problems:
            raise ConfigError(list(dict.fromkeys(self.problems)))


def _predictors(
    assembly: Assembly,
    cfg: DictConfig,
    encoder: EncoderSpec,
    objectives: Mapping[str, Objective],
    targets: Mapping[str, Target],
) -> dict[str, Predictor]:
    """Each predictor predicts what the objectives that read it need, and no more."""
    predictors = {}
    for name, entry in cfg.predictors.items():
        readers = [objective for objective in objectives.values() if objective.predictor == name]
        regions = {objective.region for objective in readers}
        dims = {targets[objective.target].dim for objective in readers}
        if len(dims) != 1:
            wanted = f"of {sorted(dims)} values per cell; one predictor gives one size" if dims else "nothing"
            message = f"the objectives that read predictor {name!r} want {wanted}"
            assembly.problems.append(Problem(f"predictors.{name}", message))
            continue
        layers = {targets[objective.target].layers for objective in readers}
        predictors[str(name)] = assembly.part(
            entry,
            encoder=encoder,
            out_dim=dims.pop(),
            region=_join_regions(regions),
            target_layers=layers.pop() if len(layers) == 1 else None,
        )
    return predictors


def _join_regions(regions: set[str]) -> str:
    """One region, or all cells; with the class token if any has it."""
    if len(regions) == 1:
        return next(iter(regions))
    return f"all{WITH_CLASS}" if any(split_region(region)[1] for region in regions) else "all"


@dataclass(frozen=True)
class Reading:
    """The passes in the order they run, and what is read of each."""

    passes: dict[str, Pass]
    taps: dict[str, Taps]


def _reading(
    assembly: Assembly,
    passes: Mapping[str, Pass],
    maskings: Mapping[str, Masking],
    predictors: Mapping[str, Predictor],
    targets: Mapping[str, Target],
    objectives: Mapping[str, Objective],
) -> Reading:
    """Bring passes and their readers together; circles and passes for nothing are refused."""
    taps = collect_taps(passes, maskings, predictors, targets, objectives)
    assembly.problems.extend(unread_passes(passes, maskings, taps))
    try:
        return Reading(order_passes(passes, maskings), taps)
    except ValueError as error:
        assembly.problems.append(Problem("passes", str(error)))
        return Reading(dict(passes), taps)


def build_model(cfg: DictConfig) -> MaskedModel:
    """Compose the model that a pretraining configuration describes.

    Raises ConfigError with the configuration path of every part that refuses its options or its neighbours.
    """
    assembly = Assembly()
    inputs: Inputs = assembly.part(cfg.inputs)
    encoder: Encoder = assembly.part(cfg.encoder)
    objectives: dict[str, Objective] = assembly.parts(cfg.objectives)
    passes: dict[str, Pass] = assembly.parts(cfg.passes)
    teachers: dict[str, Encoder] = assembly.parts(cfg.teachers)
    assembly.settle()
    assembly.problems.extend(unknown_names(cfg, inputs, objectives, passes))
    assembly.settle()
    spec = encoder.spec
    specs = {name: teacher.spec for name, teacher in teachers.items()}
    specs |= dict.fromkeys(["encoder", *map(str, cfg.averages)], spec)
    passes = {name: run for name, run in passes.items() if run.network in specs}
    given = {name: specs[run.network] for name, run in passes.items()}
    maskings: dict[str, Masking] = assembly.parts(cfg.maskings, grid=spec.grid, passes=given)
    targets: dict[str, Target] = assembly.parts(cfg.targets, grid=spec.out_grid, passes=given)
    assembly.settle()
    assembly.problems.extend(unlike_pictures(cfg, inputs, spec, passes, targets, objectives))
    assembly.problems.extend(missing_predictors(cfg, passes, objectives))
    assembly.problems.extend(unmet_maskings(cfg, passes, maskings, spec))
    assembly.problems.extend(unknown_losses(cfg, targets, objectives))
    assembly.problems.extend(unknown_regions(maskings, objectives))
    assembly.problems.extend(missing_class_tokens(targets, objectives))
    predictors = _predictors(assembly, cfg, spec, objectives, targets)
    assembly.settle()
    assembly.problems.extend(unshared_inputs(cfg, predictors))
    assembly.settle()
    # Copied before they are compiled.
    averages: dict[str, EmaTeacher] = assembly.parts(cfg.averages, student=Network(encoder, predictors))
    reading = _reading(assembly, passes, maskings, predictors, targets, objectives)
    assembly.settle()
    assembly.problems.extend(unfit_for_ragged(cfg, reading.passes, given, maskings, predictors, reading.taps))
    assembly.settle()
    _prepare(cfg, Network(encoder, predictors), averages, reading)
    return MaskedModel(
        inputs=inputs,
        encoder=encoder,
        maskings=maskings,
        predictors=predictors,
        targets=targets,
        passes=reading.passes,
        objectives=in_order(objectives, targets),
        taps=reading.taps,
        teachers=teachers,
        averages=averages,
    )


def _prepare(cfg: DictConfig, student: Network, averages: Mapping[str, EmaTeacher], reading: Reading) -> None:
    """Set the networks up for what is read of them, and as the run wants them."""
    if isinstance(student.encoder, TappedEncoder):
        own = [reading.taps[name] for name, run in reading.passes.items() if run.network == "encoder"]
        student.encoder.freeze_unread(reduce(or_, own, Taps()))
    parts: list[Encoder | Predictor] = []
    for network in (student, *(average.network for average in averages.values())):
        parts += [network.encoder, *network.predictors.values()]
    for part in parts:
        part.set_grad_checkpointing(cfg.activation_checkpointing)
        if cfg.compile:
            part.compile()
