"""Parts of a model that do not go together, found before anything runs."""

from collections.abc import Iterator, Mapping

from omegaconf import DictConfig, OmegaConf

from maskpre.encoders.base import EncoderSpec
from maskpre.errors import Problem, config_path
from maskpre.inputs import Inputs
from maskpre.masking.base import Masking
from maskpre.nearest import did_you_mean
from maskpre.objectives import Objective
from maskpre.passes import Pass
from maskpre.predictors.base import Predictor
from maskpre.targets.base import Target
from maskpre.types import REGIONS, Taps, split_region


def unknown_names(
    cfg: DictConfig, inputs: Inputs, objectives: Mapping[str, Objective], passes: Mapping[str, Pass]
) -> Iterator[Problem]:
    """Names in passes and objectives that nothing carries."""
    known = {
        "predictor": set(cfg.predictors),
        "target": set(cfg.targets),
        "masking": set(cfg.maskings),
        "pass": set(passes),
        "pass with a plan": {name for name, run in passes.items() if run.masking or run.of},
        "network": {"encoder", *cfg.teachers, *cfg.averages},
        "view": set(inputs.channels),
    }
    uses = [
        *((f"objectives.{n}.predictor", o.predictor, "predictor") for n, o in objectives.items()),
        *((f"objectives.{n}.target", o.target, "target") for n, o in objectives.items()),
        *((f"objectives.{n}.plan", o.plan, "pass with a plan") for n, o in objectives.items()),
        *((f"passes.{n}.network", p.network, "network") for n, p in passes.items()),
        *((f"passes.{n}.view", p.view, "view") for n, p in passes.items() if p.view),
        *((f"passes.{n}.masking", p.masking, "masking") for n, p in passes.items() if p.masking),
        *((f"passes.{n}.of", p.of, "pass") for n, p in passes.items() if p.of),
        *((f"passes.{n}.predictors", q, "predictor") for n, p in passes.items() for q in p.predictors or ()),
    ]
    for path, name, kind in uses:
        if name not in known[kind]:
            hint = did_you_mean(name, known[kind])
            yield Problem(path, f"there is no {kind} {name!r}, only {', '.join(sorted(known[kind]))}{hint}")


def unlike_pictures(
    cfg: DictConfig,
    inputs: Inputs,
    spec: EncoderSpec,
    passes: Mapping[str, Pass],
    targets: Mapping[str, Target],
    objectives: Mapping[str, Objective],
) -> Iterator[Problem]:
    """Parts that expect pictures or clips of another size, or with other channels, than the data have."""
    yield from _unlike_size(cfg, inputs, spec)
    for name, run in passes.items():
        view = run.view_among(inputs.channels)
        channels = inputs.channels[view]
        if run.network == "encoder" and spec.in_chans != channels:
            yield Problem(
                "encoder",
                f"takes {spec.in_chans} channels, view {view!r} of pass {name!r} has {channels}",
            )
    for name, target in targets.items():
        yield from _unlike_views(f"targets.{name}", target, inputs)
    for name, objective in objectives.items():
        yield from _without_clusters(f"objectives.{name}.loss", objective, targets[objective.target])
        channels = sum(targets[objective.target].reads.values())
        if objective.loss.in_chans not in (None, channels):
            yield Problem(
                f"objectives.{name}.loss",
                f"counts {objective.loss.in_chans} channels per pixel, target {objective.target!r} has "
                f"{channels}",
            )


def _without_clusters(path: str, objective: Objective, target: Target) -> Iterator[Problem]:
    if objective.loss.of_scores and target.loss is None:
        yield Problem(
            path,
            f"{type(objective.loss).__name__} compares scores with clusters, which target "
            f"{objective.target!r} ({type(target).__name__}) doesn't give; use target=clusters",
        )


def _unlike_size(cfg: DictConfig, inputs: Inputs, spec: EncoderSpec) -> Iterator[Problem]:
    frames, side = OmegaConf.select(cfg, "data.num_frames"), cfg.data.image_size
    size = spec.grid.input_size
    made = (side, side) if frames is None else (frames, side, side)
    if inputs.dims != len(made):
        name, of = ("image", "pictures") if frames is None else ("video", "clips")
        yield Problem("inputs", f"don't fit the data, which are {of}; use inputs={name}")
    if len(size) != len(made):
        takes, other = ("clips", "data=demo_video") if frames is None else ("pictures", "encoder=video_vit")
        yield Problem("encoder", f"takes {takes} {size}, the data make {made}; use e.g. {other}")
    elif size != made:
        keys = "data.image_size makes" if frames is None else "data.num_frames and data.image_size make"
        of = "pictures" if frames is None else "clips"
        yield Problem("encoder", f"takes {of} of {size}, {keys} them {made}")


def unfit_for_ragged(
    cfg: DictConfig,
    passes: Mapping[str, Pass],
    specs: Mapping[str, EncoderSpec],
    maskings: Mapping[str, Masking],
    predictors: Mapping[str, Predictor],
    taps: Mapping[str, Taps],
) -> Iterator[Problem]:
    """Parts that need as many visible cells in every sample, where a masking leaves differing numbers."""
    for name, run in passes.items():
        masking = _masking_of(run, passes)
        if masking is None or not maskings[masking].ragged:
            continue
        kind, path = type(maskings[masking]).__name__, config_path(cfg.maskings[masking])
        why = f"{kind} leaves differing numbers of cells visible in pass {name!r}"
        if not specs[name].takes_ragged:
            yield Problem(
                path,
                f"{why}, but {run.network!r} needs the same number in every sample; use encoder=vit, an "
                "encoder with hidden=replace, or masking=random",
            )
        for key in predictors if run.predictors is None else run.predictors:
            if not predictors[key].takes_ragged:
                yield Problem(
                    path,
                    f"{why}, but predictor {key!r} ({type(predictors[key]).__name__}) needs the same number "
                    "in every sample; use predictor=mae_decoder or masking=random",
                )
        if taps[name].attention and specs[name].omits_hidden:
            yield Problem(path, f"{why}, where the class token's attention can't be read; use masking=random")


def _masking_of(run: Pass, passes: Mapping[str, Pass]) -> str | None:
    """The masking that made the pass's plan, if it has one."""
    while run.of is not None:
        run = passes[run.of]
    return run.masking


def _unlike_views(path: str, target: Target, inputs: Inputs) -> Iterator[Problem]:
    for view, channels in target.reads.items():
        if view not in inputs.channels:
            hint = did_you_mean(view, inputs.channels)
            yield Problem(
                path, f"reads view {view!r}, the inputs make only {', '.join(inputs.channels)}{hint}"
            )
        elif inputs.channels[view] != channels:
            yield Problem(
                path, f"reads {channels} channels of view {view!r}, which has {inputs.channels[view]}"
            )


def unknown_regions(
    maskings: Mapping[str, Masking], objectives: Mapping[str, Objective]
) -> Iterator[Problem]:
    """Regions that no plan has."""
    known = [*REGIONS, *(region for masking in maskings.values() for region in masking.regions)]
    for name, objective in objectives.items():
        for region in split_region(objective.region)[0].split("&"):
            if region not in known:
                yield Problem(
                    f"objectives.{name}.region",
                    f"there is no region {region!r}, only {', '.join(known)}, and several joined by "
                    f"&{did_you_mean(region, known)}",
                )


def missing_class_tokens(
    targets: Mapping[str, Target], objectives: Mapping[str, Objective]
) -> Iterator[Problem]:
    """Objectives that compare class tokens which the target doesn't have."""
    for name, objective in objectives.items():
        cells, with_class = split_region(objective.region)
        if with_class and not targets[objective.target].gives_class:
            yield Problem(
                f"objectives.{name}.region",
                f"{objective.region!r} counts the class token, for which target {objective.target!r} has no "
                f"value; use {cells!r}",
            )
