"""Pre-training steps of ColorMAE (Hinojosa et al., ECCV 2024) on mmpretrain."""

from dataclasses import dataclass

from maskpre.checkpoints.infer import mlp_ratio
from maskpre.checkpoints.names_mmpretrain import pretraining_keys
from maskpre.golden.case import Case
from maskpre.golden.color_masks import check_colors, given_plan
from maskpre.golden.compare import Replay
from maskpre.golden.mae_settings import MAESettings
from maskpre.golden.pretraining import Experiment, experiment, replay_experiment
from maskpre.types import Grid


@dataclass(kw_only=True)
class Settings(MAESettings):
    """The official configuration's model settings; the colour is what the noise was filtered with."""

    feedforward_channels: int
    decoder_mlp_ratio: float = 4.0
    norm_pix_loss: bool = True
    color: str = "green"
    mask_type: str | None = None


def overrides(s: Settings) -> list[str]:
    """The experiment `colormae` with a case's sizes; the plan is given, so no noise is generated."""
    return [
        "experiment=colormae",
        "masking=random",
        s.pixel_target,
        *s.sizes(),
        f"encoder.mlp_ratio={mlp_ratio(s.feedforward_channels, s.embed_dim)}",
        f"predictor.mlp_ratio={s.decoder_mlp_ratio}",
    ]


def replay(case: Case) -> Replay:
    """The mask from the case's noise; loss and gradients as in training."""
    s = case.settings(Settings)
    check_colors(case, s.color, s.mask_type)
    config = experiment(case, overrides(s))
    cells = s.img_size // s.patch_size
    grid = Grid((cells, cells), (s.patch_size, s.patch_size))
    plan = given_plan(case, grid=grid, ratio=s.mask_ratio, batch=s.batch)
    weights = pretraining_keys(case.weights)
    run = Experiment(case, config, weights, plan=plan, eps=s.eps)
    return replay_experiment(run, pretraining_keys)
