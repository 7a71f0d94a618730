"""From a configuration to Lightning's three: trainer, module and data."""

import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskpre.build import build_model
from maskpre.checkpoints.load import load_into
from maskpre.checkpoints.sources import PlannedWeights
from maskpre.config.planned import planned_weights
from maskpre.data.module import PretrainData
from maskpre.data.picture_data import PictureData
from maskpre.encoders.attend import set_attention
from maskpre.errors import UserError
from maskpre.module import OptimizerBuilder, PretrainModule, trained_parameters
from maskpre.optim import OptimRecipe, lambda_lr
from maskpre.parallel.watch import RankWatch
from maskpre.plugins import trainer_plugins
from maskpre.run_folder import RunFolder
from maskpre.stages import make_stages
from maskpre.teachers.recorder import frozen_passes

# What Lightning says at every start and no user can act on.
_NOISE = (
    r"`isinstance\(treespec",
    r"`weights_only` was not set",
    r"The `srun` command is available",
    r"Found \d+ module\(s\) in eval mode",
    r"FSDP2-wrapped module \(\w+\) returned a view tensor",
)


def _quiet_lightning() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=f".*{message}")


@dataclass(frozen=True)
class Training:
    """Everything `Trainer.fit` needs."""

    trainer: Trainer
    module: PretrainModule
    data: PretrainData


def _with_folder(node: DictConfig, folder: RunFolder) -> list[Any]:
    """Build the entries of a group; those that write get the run's folder."""
    parts = [instantiate(entry) for entry in node.values() if entry is not None]
    return [part(folder=folder) if isinstance(part, partial) else part for part in parts]


def count_steps(cfg: DictConfig, data: PretrainData) -> int:
    """Optimiser steps of the whole run."""
    if data.steps_per_epoch == 0:
        size = len(data.source("train"))
        raise UserError(f"data.batch_size ({data.batch_size}) is larger than the data set ({size} samples)")
    if cfg.max_steps is not None:
        return int(cfg.max_steps)
    return max(1, round(cfg.epochs * data.steps_per_epoch))


def build_optimizer(
    named_parameters: Any, *, recipe: OptimRecipe, data: PretrainData, total_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The recipe's optimiser and its learning-rate schedule for this run."""
    optimizer, curve = recipe.build(
        named_parameters,
        effective_batch=data.batch_size,
        total_steps=total_steps,
        steps_per_epoch=data.steps_per_epoch,
    )
    return optimizer, lambda_lr(optimizer, curve)


def _start(cfg: DictConfig) -> str | PlannedWeights:
    """Where the weights come from: a stage is a mapping with _target_, a checkpoint a path."""
    return cfg.init_from if isinstance(cfg.init_from, str) else instantiate(cfg.init_from)


def _check_on_paper(cfg: DictConfig, make_optimizer: OptimizerBuilder) -> None:
    """Raise UserError for what the run would be refused for once its stages have been trained."""
    with torch.device("meta"):
        model = build_model(cfg)
        if cfg.init_from is not None:
            load_into(model, _start(cfg))
    # Nothing is written to them, so they take no memory.
    make_optimizer(
        [
            (name, nn.Parameter(torch.empty(weight.shape), requires_grad=weight.requires_grad))
            for name, weight in trained_parameters(model)
        ]
    )


def _build_trainer(cfg: DictConfig, folder: RunFolder, total_steps: int) -> Trainer:
    trainer: Trainer = instantiate(cfg.trainer)(
        max_steps=total_steps,
        max_epochs=-1,
        callbacks=[*_with_folder(cfg.callbacks, folder), RankWatch()],
        logger=_with_folder(cfg.logger, folder),
        plugins=trainer_plugins(),
        default_root_dir=folder.path,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    return trainer


def build_training(cfg: DictConfig, folder: RunFolder) -> Training:
    """Build all parts of a pretraining run. The weights depend on `seed` only.

    Runs that come first are trained when all that can be wrong with this one has been looked at.
    """
    _quiet_lightning()
    data: PretrainData = instantiate(cfg.data)
    data.prepare_data()
    total_steps = count_steps(cfg, data)
    make_optimizer = partial(
        build_optimizer, recipe=instantiate(cfg.optim), data=data, total_steps=total_steps
    )
    trainer = _build_trainer(cfg, folder, total_steps)
    if planned_weights(cfg):
        _check_on_paper(cfg, make_optimizer)
        make_stages(cfg)
    torch.manual_seed(cfg.seed)
    model = build_model(cfg)
    set_attention(model, cfg.attention)
    if cfg.init_from is not None:
        print(load_into(model, _start(cfg)))
    if cfg.teacher_cache is not None:
        assert isinstance(data, PictureData)
        model.recordings = frozen_passes(model)
        data.beside = instantiate(cfg.teacher_cache).open(cfg, model, data, trainer.strategy.root_device)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    module = PretrainModule(
        model=model,
        build_optimizer=make_optimizer,
        total_steps=total_steps,
        seed=cfg.seed,
        config=plain,
    )
    return Training(trainer, module, data)
