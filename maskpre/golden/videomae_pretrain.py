"""Pre-training steps of VideoMAE (arXiv 2203.12602) and VideoMAE V2 (arXiv 2303.16727)."""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from maskpre.checkpoints.names_videomae import official_keys, pretraining_keys
from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.golden.plans import GivenMasking
from maskpre.golden.pretraining import (
    build,
    experiment,
    gradients,
    load_strictly,
    official_gradients,
    take_step,
)
from maskpre.golden.videomae_settings import VideoSettings, read_settings, refuse_learnable_positions
from maskpre.model import MaskedModel
from maskpre.objectives import region_weight
from maskpre.predictors.video_decoder import VideoDecoder
from maskpre.types import Grid, MaskPlan, Step, align


@dataclass(kw_only=True)
class Settings(VideoSettings):
    """The official constructor's arguments and the step's settings.

    Kinds and ratios are those of the given masks.
    """

    encoder_embed_dim: int
    encoder_depth: int
    encoder_num_heads: int
    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    normlize_target: bool = True
    mask_type: str = "tube"
    mask_ratio: float = 0.0
    decoder_mask_type: str = "run_cell"
    decoder_mask_ratio: float = 0.0
    encoder_in_chans: int = 3
    encoder_num_classes: int = 0
    decoder_num_classes: int | None = None
    num_classes: int = 0
    in_chans: int = 0
    batch: int | None = None

    @property
    def grid(self) -> Grid:
        """The tubelets."""
        side, patch = self.img_size, self.patch_size
        return Grid.over((self.num_frames, side, side), (self.tubelet_size, patch, patch))


METHOD = {
    "data": "demo_video",
    "inputs": "video",
    "masking": "tube",
    "encoder": "video_vit",
    "target": "pixels_channel_norm",
    "predictor": "video_decoder",
}


def overrides(s: Settings) -> list[str]:
    """The method of the experiment `videomae` with a case's sizes and switches."""
    shared = {**s.blocks(), "init_values": s.init_values or "null", "drop_path_rate": s.drop_path_rate}
    return [
        *(f"{group}={name}" for group, name in METHOD.items()),
        f"data.num_frames={s.num_frames}",
        f"data.image_size={s.img_size}",
        f"target.normalize={'channel' if s.normlize_target else 'none'}",
        f"encoder.patch_size={s.patch_size}",
        f"encoder.tubelet_size={s.tubelet_size}",
        f"encoder.embed_dim={s.encoder_embed_dim}",
        f"encoder.depth={s.encoder_depth}",
        f"encoder.num_heads={s.encoder_num_heads}",
        f"predictor.embed_dim={s.decoder_embed_dim}",
        f"predictor.depth={s.decoder_depth}",
        f"predictor.num_heads={s.decoder_num_heads}",
        f"activation_checkpointing={s.with_cp}",
        "data.mean=[0.485,0.456,0.406]",
        "data.std=[0.229,0.224,0.225]",
        *(f"{part}.{key}={value}" for part in ("encoder", "predictor") for key, value in shared.items()),
    ]


def replay(case: Case) -> Replay:
    """One step under the case's masks; the region is what is decoded and hidden from the encoder."""
    s = read_settings(case, Settings)
    _check(case, s)
    plan = given_plan(case, s.grid)
    model = _build(case, s, plan)
    load_strictly(model, pretraining_keys(case.weights), case)
    step = take_step(model, "video", case.input("videos"), noise={})
    assert step.total is not None
    step.total.backward()
    return Replay(
        loss=step.total,
        losses={"recon": step.losses["main"]},
        tensors=_tensors(step, model, plan),
        gradients=official_keys(gradients(model)),
        expected_gradients=official_gradients(case),
    )


def _check(case: Case, s: Settings) -> None:
    """Refuse what the official code fails at or this package's model has no counterpart of."""
    refuse_learnable_positions(case, s.use_learnable_pos_emb)
    values = s.encoder_in_chans * s.tubelet_size * s.patch_size**2
    if s.encoder_num_classes or s.decoder_num_classes not in (None, values):
        raise CannotReplayError(
            f"{case.name}: encoder_num_classes must be 0 and decoder_num_classes {values}, the values of a "
            f"tubelet; they are {s.encoder_num_classes} and {s.decoder_num_classes}"
        )


def _build(case: Case, s: Settings, plan: MaskPlan) -> MaskedModel:
    config = experiment(case, overrides(s))
    config.objectives.main.region = "masked" if plan.decode is None else "decode&masked"
    # Evaluation mode, as nothing but stochastic depth is told apart by it.
    model = build(case, config).eval()
    model.maskings["main"] = GivenMasking(plan=plan)
    return model


def given_plan(case: Case, grid: Grid) -> MaskPlan:
    """The plan of the given masks, in raster order; V2 shapes them (b, frames, cells of a frame)."""
    mask = case.input("mask").flatten(1).bool()
    plan = MaskPlan.from_mask(mask, num_hidden=_equal_count(case, "mask", mask), grid=grid)
    if "decode_mask" not in case.inputs:
        return plan
    hidden = case.input("decode_mask").flatten(1).bool()
    shown = hidden.shape[1] - _equal_count(case, "decode_mask", hidden)
    return replace(plan, decode=hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, :shown])


def _equal_count(case: Case, name: str, mask: Tensor) -> int:
    counts = mask.sum(dim=1).unique()
    if len(counts) != 1:
        raise CannotReplayError(f"{case.name}: input {name!r} hides differing numbers: {counts.tolist()}")
    return int(counts)


def _tensors(step: Step, model: MaskedModel, plan: MaskPlan) -> Tensors:
    encoded, prediction = step.outputs["student"], step.predictions["student"]["main"]
    decoder = cast(VideoDecoder, model.predictors["main"])
    targets = align(model.targets["main"](step), like=prediction)
    weight = region_weight(plan, model.objectives["main"].region, prediction)
    fill = plan.hide if plan.decode is None else plan.decode
    return {
        "mask": plan.mask,
        "latent": encoded.tokens,
        "dec_in": decoder.sequence(decoder.prepare(encoded), fill),
        "pred": prediction.tokens,
        "target_sample0": targets[:1],
        "loss_mask": torch.ones_like(targets[..., 0]) if weight is None else weight[..., 0],
        "loss_per_token": step.loss_maps["main"].tokens[..., 0],
        "pos_embed.encoder": model.encoder.get_buffer("pos_embed"),
        "pos_embed.decoder": decoder.get_buffer("pos_embed"),
    }
