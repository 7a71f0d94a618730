"""Pre-training steps of MAE (He et al., arXiv 2111.06377)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from omegaconf import DictConfig

from maskpre.checkpoints.names_mae import NAMES, pretraining_keys
from maskpre.golden.case import Case
from maskpre.golden.compare import Replay
from maskpre.golden.mae_settings import MAESettings
from maskpre.golden.pretraining import Experiment, experiment, replay_experiment
from maskpre.model import MaskedModel
from maskpre.optim import build_param_groups, weight_decay_split
from maskpre.optim.formulas import warmup_cosine


@dataclass(kw_only=True)
class Settings(MAESettings):
    """The official constructor's arguments and the step's.

    `grad_patch_weight` says whether the case keeps the patch embedding's gradient.
    """

    mlp_ratio: float = 4.0
    grad_patch_weight: bool = True


def overrides(s: Settings) -> list[str]:
    """The experiment `mae` with a case's sizes."""
    return [
        "experiment=mae",
        s.pixel_target,
        *s.sizes(),
        f"encoder.mlp_ratio={s.mlp_ratio}",
        f"predictor.mlp_ratio={s.mlp_ratio}",
    ]


def replay(case: Case) -> Replay:
    """Masks from the case's noise; loss and gradients as in training, which projects hidden cells only."""
    s = case.settings(Settings)
    config = experiment(case, overrides(s))
    weights = pretraining_keys(case.weights)
    run = Experiment(case, config, weights, noise={"mask": case.input("noise")}, eps=s.eps)
    return replay_experiment(run, pretraining_keys, extras=partial(_extras, case, config.optim))


def _extras(case: Case, optim: DictConfig, model: MaskedModel) -> dict[str, Any]:
    """The experiment's weight-decay split under official names, and its learning-rate curve."""
    named = list(model.named_parameters())
    split = weight_decay_split(named, optim.decay_policy)
    decayed, exempt = (sorted(NAMES.official_name(name) for name in part) for part in split)
    groups = build_param_groups(named, lr=1.0, weight_decay=optim.weight_decay, policy=optim.decay_policy)
    extras: dict[str, Any] = {
        "weight_decay": decayed,
        "no_weight_decay": exempt,
        "group_weight_decay": [group["weight_decay"] for group in groups],
    }
    if "lr_schedule" in case.extras:
        extras["lr_schedule"] = _lr_samples(case.extras["lr_schedule"])
    return extras


def _lr_samples(asked: dict[str, Any]) -> dict[str, Any]:
    """The learning rate at the epochs asked for."""
    points = [
        [
            epoch,
            warmup_cosine(
                epoch,
                peak=asked["lr"],
                min_lr=asked["min_lr"],
                warmup_epochs=asked["warmup_epochs"],
                epochs=asked["epochs"],
            ),
        ]
        for epoch, _ in asked["points_epoch_lr"]
    ]
    return {**asked, "points_epoch_lr": points}
