"""The one place where components meet: from a configuration to a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from maskpre.compatibility import unknown_names, unlike_pictures
from maskpre.encoders.base import Encoder, EncoderSpec
from maskpre.errors import ConfigError, Problem
from maskpre.inputs import Inputs
from maskpre.masking.base import Masking
from maskpre.model import MaskedModel
from maskpre.objectives import Objective
from maskpre.passes import Network, Pass
from maskpre.predictors.base import Predictor
from maskpre.targets.base import Target
from maskpre.teachers.ema import EmaTeacher


def config_path(entry: DictConfig) -> str:
    """Dotted path where an entry really stands, also if it was reached through a reference."""
    return str(entry._get_full_key(""))


@dataclass
class Assembly:
    """Builds parts and collects what they refuse, so that all of it can be told at once."""

    problems: list[Problem] = field(default_factory=list)

    def part(self, entry: DictConfig, **context: Any) -> Any:
        """The part that a node describes, given what it must know of others; None if it refuses.

        Only a ValueError counts as a refusal; any other error passes through.
        """
        try:
            made = instantiate(entry)
            return made(**context) if context else made
        except InstantiationException as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            where = re.search(r"full_key: (\S+)", str(error))
            self.problems.append(Problem(where[1] if where else config_path(entry), str(error.__cause__)))
        except ValueError as error:
            self.problems.append(Problem(config_path(entry), str(error)))
        return None

    def parts(self, group: DictConfig, **context: Any) -> dict[str, Any]:
        """Every entry of a group by name."""
        return {str(name): self.part(entry, **context) for name, entry in group.items()}

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
        region = regions.pop() if len(regions) == 1 else "all"
        predictors[str(name)] = assembly.part(entry, encoder=encoder, out_dim=dims.pop(), region=region)
    return predictors


def build_model(cfg: DictConfig) -> MaskedModel:
    """Compose the model that a pretraining configuration describes.

    Raises ConfigError with the configuration path of every part that refuses its options or its neighbours.
    """
    assembly = Assembly()
    inputs: Inputs = assembly.part(cfg.inputs)
    encoder: Encoder = assembly.part(cfg.encoder)
    objectives: dict[str, Objective] = assembly.parts(cfg.objectives)
    passes: dict[str, Pass] = assembly.parts(cfg.passes)
    assembly.settle()
    spec = encoder.spec
    maskings: dict[str, Masking] = assembly.parts(cfg.maskings, grid=spec.grid)
    targets: dict[str, Target] = assembly.parts(cfg.targets, grid=spec.out_grid)
    teachers: dict[str, Encoder] = assembly.parts(cfg.teachers)
    assembly.problems.extend(unknown_names(cfg, inputs, objectives, passes))
    assembly.settle()
    assembly.problems.extend(unlike_pictures(cfg, inputs, spec, passes, targets, objectives))
    predictors = _predictors(assembly, cfg, spec, objectives, targets)
    assembly.settle()
    # Copied before they are compiled.
    averages: dict[str, EmaTeacher] = assembly.parts(cfg.averages, student=Network(encoder, predictors))
    assembly.settle()
    parts: list[Encoder | Predictor] = []
    for network in (Network(encoder, predictors), *(average.network for average in averages.values())):
        parts += [network.encoder, *network.predictors.values()]
    for part in parts:
        part.set_grad_checkpointing(cfg.activation_checkpointing)
        if cfg.compile:
            part.compile()
    return MaskedModel(
        inputs=inputs,
        encoder=encoder,
        maskings=maskings,
        predictors=predictors,
        targets=targets,
        passes=passes,
        objectives=objectives,
        teachers=teachers,
        averages=averages,
    )
