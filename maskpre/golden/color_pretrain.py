"""Pre-training steps of ColorMAE (Hinojosa et al., ECCV 2024) on mmpretrain."""

from dataclasses import dataclass

from maskpre.checkpoints.infer import mlp_ratio
from maskpre.checkpoints.names_mmpretrain import pretraining_keys
from maskpre.golden.case import Case
from maskpre.golden.color_masks import check_colors, given_plan
from maskpre.golden.compare import Replay
from maskpre.golden.pretraining import Experiment, experiment, replay_experiment
from maskpre.types import Grid


@dataclass
class Settings:
    """The official configuration's model settings; the colour is what the noise was filtered with."""

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    feedforward_channels: int
    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    mask_ratio: float
    batch: int
    decoder_mlp_ratio: float = 4.0
    norm_pix_loss: bool = True
    color: str = "green"
    mask_type: str | None = None
    eps: float = 1e-6


def overrides(s: Settings) -> list[str]:
    """The experiment `colormae` with a case's sizes; the plan is given, so no noise is generated."""
    return [
        "experiment=colormae",
        "masking=random",
        "target=pixels_patch_norm" if s.norm_pix_loss else "target=pixels",
        f"data.image_size={s.img_size}",
        f"encoder.patch_size={s.patch_size}",
        f"encoder.embed_dim={s.embed_dim}",
        f"encoder.depth={s.depth}",
        f"encoder.num_heads={s.num_heads}",
        f"encoder.mlp_ratio={mlp_ratio(s.feedforward_channels, s.embed_dim)}",
        f"predictor.embed_dim={s.decoder_embed_dim}",
        f"predictor.depth={s.decoder_depth}",
        f"predictor.num_heads={s.decoder_num_heads}",
        f"predictor.mlp_ratio={s.decoder_mlp_ratio}",
        f"masking.ratio={s.mask_ratio}",
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
