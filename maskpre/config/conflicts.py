"""Options that are each valid, but not together."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from maskpre.build import Assembly, build_model
from maskpre.checkpoints.load import load_into
from maskpre.config.planned import planned_weights
from maskpre.config.precision import precision_conflicts, wants_half
from maskpre.errors import ConfigError, Problem, UserError
from maskpre.model import MaskedModel
from maskpre.nearest import multiples, nearest_number
from maskpre.ops.attention_choice import runs_triton
from maskpre.optim import LrRun, OptimRecipe
from maskpre.slurm import check_tasks
from maskpre.teachers.recorder import frozen_passes

_MODEL = frozenset(
    {
        "data",
        "inputs",
        "encoder",
        "maskings",
        "masking",
        "predictors",
        "predictor",
        "targets",
        "target",
        "passes",
        "objectives",
        "loss",
        "teacher",
        "teachers",
        "init_from",
        "averages",
        "teacher_cache",
        "activation_checkpointing",
        "compile",
    }
)

# Parts that are built without knowing others.
_ALONE = ("data", "optim", "recipe", "probe", "teacher_cache")


def find_conflicts(cfg: DictConfig, *, broken: set[str]) -> list[Problem]:
    """Build parts on paper (no memory, no data, no random draws) and collect what they refuse.

    Parts at the top-level keys `broken` are left out, and what depends on them.
    """
    assembly = Assembly()
    alone = [cfg[name] for name in _ALONE if cfg.get(name) is not None and name not in broken]
    if "callbacks" in cfg and "callbacks" not in broken:
        alone += [entry for entry in cfg.callbacks.values() if entry is not None]
    alone += planned_weights(cfg)
    for entry in alone:
        assembly.part(entry)
    refused = {problem.path.partition(".")[0] for problem in assembly.problems} | broken
    found = []
    if "objectives" in cfg and not refused & _MODEL:
        found += _model_conflicts(cfg)
    for check, needs in _checks(cfg).items():
        if not refused & needs:
            found += check(cfg)
    return assembly.problems + found


def _checks(cfg: DictConfig) -> dict[Callable[[DictConfig], Iterator[Problem]], set[str]]:
    """What else is checked, and which top-level keys must be sound for it."""
    if "objectives" not in cfg:
        return {precision_conflicts: {"recipe", "probe", "trainer"}, _sharding: {"trainer"}}
    return {
        _length: {"epochs", "max_steps"},
        _schedule: {"optim", "epochs", "max_steps"},
        _batch: {"data", "trainer"},
        precision_conflicts: {"optim", "trainer"},
        _attention: {"attention", "trainer"},
        _sharding: {"trainer"},
        _transforms: {"data"},
    }


def _model_conflicts(cfg: DictConfig) -> list[Problem]:
    try:
        with torch.device("meta"):
            model = build_model(cfg)
    except ConfigError as error:
        return list(error.problems)
    return [*_start(cfg, model), *_cache(cfg, model)]


def _cache(cfg: DictConfig, model: MaskedModel) -> Iterator[Problem]:
    """What teachers give can be kept if it is the same whenever a crop comes back."""
    if cfg.get("teacher_cache") is None:
        return
    if cfg.data.get("crops_per_sample") is None:
        yield Problem(
            "teacher_cache",
            "can't keep what a teacher makes of crops that are new in every epoch; set data.crops_per_sample "
            "to a number, or teacher_cache=none",
        )
    recorded = frozen_passes(model)
    if not recorded:
        learning = ", ".join(f"{name} ({run.network})" for name, run in model.passes.items())
        yield Problem(
            "teacher_cache",
            f"there is no frozen teacher, only passes of networks that change in every step: {learning}; use "
            "teacher_cache=none",
        )
    for name in recorded:
        if model.passes[name].masking is not None or model.passes[name].of is not None:
            yield Problem(
                "teacher_cache",
                f"pass {name!r} shows its teacher what a mask leaves, which is new in every step; set "
                f"passes.{name}.masking=null, or teacher_cache=none",
            )


def _start(cfg: DictConfig, model: MaskedModel) -> Iterator[Problem]:
    """Weights that a run has yet to make must fit, or the run would be for nothing."""
    if isinstance(cfg.init_from, DictConfig):
        try:
            load_into(model, instantiate(cfg.init_from))
        except UserError as error:
            yield Problem("init_from", str(error))


def _length(cfg: DictConfig) -> Iterator[Problem]:
    for name in ("epochs", "max_steps"):
        if cfg[name] is not None and cfg[name] <= 0:
            yield Problem(name, f"must be greater than 0, got {cfg[name]}")


def _schedule(cfg: DictConfig) -> Iterator[Problem]:
    """The warm-up must end within the run; with `max_steps` only the data tell how long that is."""
    if cfg.max_steps is None and cfg.epochs > 0:
        recipe: OptimRecipe = Assembly().part(cfg.optim)
        steps = 1000
        run = LrRun(
            peak=1, batch_ratio=1, total_steps=max(1, round(cfg.epochs * steps)), steps_per_epoch=steps
        )
        try:
            recipe.schedule.bind(run)
        except ValueError as error:
            yield Problem("optim.schedule", f"{error}; change epochs or optim.schedule")


def num_devices(devices: Any) -> int:
    """Devices per node that a trainer is told to use; 1 where only the machine can tell ("auto")."""
    if isinstance(devices, str):
        devices = int(devices) if devices.isdigit() else [name for name in devices.split(",") if name]
    return max(1, devices if isinstance(devices, int) else len(devices))


def _batch(cfg: DictConfig) -> Iterator[Problem]:
    """`data.batch_size` counts the samples of an optimiser step; every device gets the same share."""
    trainer, size = cfg.trainer, cfg.data.batch_size
    counts = {
        "data.batch_size": size,
        "trainer.num_nodes": trainer.get("num_nodes", 1),
        "trainer.accumulate_grad_batches": trainer.get("accumulate_grad_batches", 1),
    }
    too_small = {path: count for path, count in counts.items() if count < 1}
    if too_small:
        yield from (Problem(path, f"must be at least 1, got {count}") for path, count in too_small.items())
        return
    shares = num_devices(trainer.get("devices", 1)) * prod(list(counts.values())[1:])
    if size % shares:
        nearest = nearest_number(size, multiples(shares, near=size))
        yield Problem(
            "data.batch_size",
            f"{size} samples per step can't be shared by {shares} (trainer.devices * num_nodes * "
            f"accumulate_grad_batches){nearest}",
        )


def check_machine(cfg: DictConfig) -> None:
    """Raise UserError if this machine, or the SLURM job, can't do what the configuration asks of it."""
    if "trainer" in cfg:
        check_tasks(cfg)
    automatic = cfg.get("trainer", {}).get("accelerator") == "auto"
    if automatic and wants_half(cfg) and not torch.accelerator.is_available():
        raise UserError(
            f"trainer.precision={cfg.trainer.precision} needs a GPU, and there is none here; use "
            "trainer.precision=bf16-mixed or 32-true"
        )
    if automatic and cfg.get("attention") == "triton" and not runs_triton(torch.device(_accelerator())):
        raise UserError("attention=triton needs a CUDA GPU, and there is none here; use attention=auto")


def _accelerator() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _attention(cfg: DictConfig) -> Iterator[Problem]:
    on_cpu = cfg.trainer.get("accelerator") == "cpu"
    if cfg.attention == "triton" and on_cpu and not runs_triton(torch.device("cpu")):
        yield Problem("attention", "triton needs a GPU, but trainer.accelerator is cpu; use auto")


def _sharding(cfg: DictConfig) -> Iterator[Problem]:
    """What can't be trained with weights divided among ranks."""
    if not isinstance(cfg.get("trainer", {}).get("strategy"), DictConfig):
        return
    if "objectives" not in cfg:
        yield Problem("trainer.strategy", "divided weights are for pretraining only; use trainer=default")
    elif wants_half(cfg):
        yield Problem(
            "trainer.precision",
            f"{cfg.trainer.precision} scales losses, which divided weights (trainer=fsdp2) don't follow; use "
            "bf16-mixed or 32-true",
        )


def _transforms(cfg: DictConfig) -> Iterator[Problem]:
    for name in ("transform", "eval_transform"):
        size = cfg.data[name].get("size", cfg.data.image_size)
        if size != cfg.data.image_size:
            yield Problem(
                f"data.{name}.size",
                f"makes pictures of {size} pixels, data.image_size is {cfg.data.image_size}",
            )
