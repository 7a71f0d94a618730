"""What passes, maskings and objectives read of each other: it must exist, and come first."""

from collections.abc import Iterator, Mapping

from omegaconf import DictConfig

from maskpre.encoders.base import EncoderSpec
from maskpre.errors import Problem, config_path
from maskpre.masking.base import Masking
from maskpre.nearest import did_you_mean
from maskpre.objectives import Objective
from maskpre.passes import Pass
from maskpre.predictors.base import Predictor
from maskpre.targets.base import Target


def _only(known: Mapping[str, object] | list[str]) -> str:
    return f"only {', '.join(known)}" if known else "none at all"


def missing_predictors(
    cfg: DictConfig, passes: Mapping[str, Pass], objectives: Mapping[str, Objective]
) -> Iterator[Problem]:
    """Predictors that a pass's network doesn't have, or that no pass runs where an objective reads them."""
    everything = list(cfg.predictors)
    has = {"encoder": everything, **{name: [] for name in cfg.teachers}}
    for name, average in cfg.averages.items():
        chosen = average.get("predictors")
        has[str(name)] = everything if chosen is None else list(chosen)
    for name, run in passes.items():
        for key in run.predictors or ():
            if key in everything and key not in has[run.network]:
                yield Problem(
                    f"passes.{name}.predictors",
                    f"network {run.network!r} has no predictor {key!r}, {_only(has[run.network])}",
                )
    for name, objective in objectives.items():
        run = passes[objective.plan]
        runs = has[run.network] if run.predictors is None else list(run.predictors)
        if objective.predictor not in runs:
            yield Problem(
                f"objectives.{name}.predictor",
                f"pass {objective.plan!r} doesn't run predictor {objective.predictor!r}, {_only(runs)}",
            )


def unmet_maskings(
    cfg: DictConfig, passes: Mapping[str, Pass], maskings: Mapping[str, Masking], spec: EncoderSpec
) -> Iterator[Problem]:
    """Maskings that read predictions which no other pass makes of the whole view."""
    for name, run in passes.items():
        masking = None if run.masking is None or run.of is not None else maskings[run.masking]
        if masking is not None and masking.reads is not None:
            others = {other: one for other, one in passes.items() if other != name}
            yield from _unmet(config_path(cfg.maskings[run.masking]), name, masking, others, spec)


def _unmet(
    path: str, reader: str, masking: Masking, others: Mapping[str, Pass], spec: EncoderSpec
) -> Iterator[Problem]:
    assert masking.reads is not None
    of, predictor = masking.reads
    source = others.get(of)
    if source is None or (source.predictors is not None and predictor not in source.predictors):
        yield Problem(
            path,
            f"{type(masking).__name__} of pass {reader!r} needs another pass {of!r} that runs predictor "
            f"{predictor!r}; besides it there is {_only(others)}",
        )
    elif source.masking is not None or source.of is not None:
        yield Problem(
            path,
            f"{type(masking).__name__} needs predictions for all cells, but pass {of!r} hides some; set "
            f"passes.{of}.masking=null",
        )
    else:
        try:
            masking.fit(spec.out_grid)
        except ValueError as error:
            yield Problem(path, str(error))


def unshared_inputs(cfg: DictConfig, predictors: Mapping[str, Predictor]) -> Iterator[Problem]:
    """Predictors that are to run on another's input which isn't there or doesn't fit."""
    for name, predictor in predictors.items():
        if predictor.input_of is None:
            continue
        owner, path = predictors.get(predictor.input_of), f"predictors.{name}.input_of"
        if owner is None:
            hint = did_you_mean(predictor.input_of, predictors)
            yield Problem(path, f"there is no predictor {predictor.input_of!r}, {_only(predictors)}{hint}")
        elif type(owner) is not type(predictor) or owner.input_of is not None:
            yield Problem(
                path,
                f"{predictor.input_of!r} is a {type(owner).__name__} and can't give its input to a "
                f"{type(predictor).__name__}; it must be one, with an input of its own",
            )
        elif owner.input_dim != predictor.input_dim:
            yield Problem(
                path,
                f"{predictor.input_of!r} works on width {owner.input_dim}, {name!r} on "
                f"{predictor.input_dim}; they must agree",
            )
        for average, entry in cfg.averages.items():
            chosen = entry.get("predictors")
            if chosen is not None and name in chosen and predictor.input_of not in chosen:
                yield Problem(
                    f"averages.{average}.predictors",
                    f"{name!r} runs on the input of {predictor.input_of!r}: average both",
                )


def unknown_losses(
    cfg: DictConfig, targets: Mapping[str, Target], objectives: Mapping[str, Objective]
) -> Iterator[Problem]:
    """Targets that are losses of objectives which don't exist, run too late, or lack their tokens."""
    for name, objective in objectives.items():
        read = targets[objective.target].loss_of
        path = f"{config_path(cfg.targets[objective.target])}.objective"
        if read is None:
            continue
        if read not in objectives:
            yield Problem(
                path, f"there is no objective {read!r}, {_only(objectives)}{did_you_mean(read, objectives)}"
            )
        elif read == name or targets[objectives[read].target].loss_of is not None:
            yield Problem(
                path, f"objective {name!r} reads the loss of {read!r}, which must not be a loss's loss itself"
            )
        elif (objective.region, objective.plan) != (objectives[read].region, objectives[read].plan):
            yield Problem(
                f"objectives.{name}.region",
                f"is {objective.region!r} of {objective.plan!r}, but the loss it reads is that of "
                f"{objectives[read].region!r} of {objectives[read].plan!r}",
            )


def in_order(objectives: Mapping[str, Objective], targets: Mapping[str, Target]) -> dict[str, Objective]:
    """Objectives as given, those that read another's loss last."""
    late = {name for name, objective in objectives.items() if targets[objective.target].loss_of is not None}
    return dict(sorted(objectives.items(), key=lambda item: item[0] in late))
