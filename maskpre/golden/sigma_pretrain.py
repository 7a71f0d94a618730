"""Pre-training steps of SIGMA (Salehi et al., ECCV 2024, arXiv 2407.15447)."""

from dataclasses import dataclass, field
from math import isqrt

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from maskpre.checkpoints.names_sigma import official_keys, pretraining_keys
from maskpre.golden import videomae_pretrain
from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.golden.plans import GivenMasking, GivenTarget, given_target
from maskpre.golden.pretraining import (
    build,
    experiment,
    gradients,
    load_strictly,
    official_gradients,
    take_step,
)
from maskpre.golden.videomae_settings import read_settings
from maskpre.losses.swapped_assignments import SwappedAssignments
from maskpre.model import MaskedModel
from maskpre.targets.clusters import ClusterTarget
from maskpre.targets.features import normalize_features
from maskpre.types import MaskPlan, Step, align

TARGETS = {"mlp": ("SWAV",), "pixel": ("L2",), "dino_v1": ("SWAV", "L2"), "dino_v2": ("SWAV", "L2")}
DINO = ("dino_v1", "dino_v2")
# Of VideoMAE V2, which shares the other switches.
UNKNOWN = ("cos_attn", "decoder_mask_ratio")
# What frames of DINO's teachers have before their patches: a class token, in v2 registers too.
PREFIXES = (0, 1, 5)


@dataclass(kw_only=True)
class Settings(videomae_pretrain.Settings):
    """The official constructor's arguments and the step's settings.

    `head_dims` are the widths of the projection, its input's and its output's included.
    """

    target_type: str = "pixel"
    loss_func: str = "SWAV"
    num_prototypes: int = 3000
    sinkhorn_iterations: int = 10
    sinkhorn_eps: float = 0.05
    memory_size: int = 0
    head_dims: list[int] = field(default_factory=lambda: [1536, 1024, 1024, 512, 256])
    world_size: int = 1
    use_checkpoint: bool = False
    chromatic_correction: bool = False
    # Of modules that only target 'mha' has, and of the choice of a teacher.
    kwindow: int = 1
    n_parts: int = 20
    distillation_teacher: str | None = None


def replay(case: Case) -> Replay:
    """One step under the case's mask; features of frozen networks are the case's."""
    s = _settings(case)
    plan = videomae_pretrain.given_plan(case, s.grid)
    features = _features(case, s, plan) if s.target_type in DINO else None
    model = _build(case, s, plan, features)
    load_strictly(model, pretraining_keys(case.weights), case)
    step = take_step(model, "video", case.input("videos"), noise={})
    assert step.total is not None
    step.total.backward()
    return Replay(
        loss=step.total,
        losses=_losses(step),
        tensors=_tensors(step, model, plan),
        gradients=official_keys(gradients(model)),
        expected_gradients=official_gradients(case),
    )


def _settings(case: Case) -> Settings:
    """The settings, without those at which the official code fails; CannotReplayError for these."""
    given = case.hyperparameters
    for name in UNKNOWN:
        if name in given:
            raise CannotReplayError(f"{case.name}: hyperparameters: {name!r} is unknown")
    s = read_settings(case, Settings)
    s.with_cp = s.use_checkpoint
    if s.target_type not in TARGETS:
        raise CannotReplayError(
            f"{case.name}: target_type {s.target_type!r} is unknown; known are {', '.join(TARGETS)}"
        )
    if s.loss_func not in TARGETS[s.target_type]:
        raise CannotReplayError(
            f"{case.name}: loss_func {s.loss_func!r} with target_type {s.target_type!r} fails in the "
            f"official code; it goes with {', '.join(TARGETS[s.target_type])}"
        )
    if s.mask_type not in ("tube", "parts", "tube_fgbg"):
        raise CannotReplayError(
            f"{case.name}: mask_type {s.mask_type!r} fails in the official code; use tube"
        )
    if s.world_size != 1:
        raise CannotReplayError(f"{case.name}: world_size must be 1, got {s.world_size}")
    if s.chromatic_correction:
        raise CannotReplayError(f"{case.name}: chromatic_correction has no counterpart here")
    return s


def overrides(s: Settings) -> list[str]:
    """The method of the experiment `sigma` with a case's sizes and switches."""
    shared = [one for one in videomae_pretrain.overrides(s) if not one.startswith(("target=", "target."))]
    normalize = "channel" if s.normlize_target else "none"
    predictor = "predictor.predictor" if s.memory_size else "predictor"
    lines = [
        line.replace("predictor", predictor, 1) if line.startswith("predictor.") else line for line in shared
    ]
    if s.memory_size:
        lines.remove("predictor=video_decoder")
        memory = ["predictor=memory", "predictor@predictor.predictor=video_decoder"]
        lines += [*memory, f"predictor.size={s.memory_size}"]
    if s.loss_func == "L2":
        return [*lines, "target=pixels_channel_norm", f"target.normalize={normalize}"]
    *hidden, dim = s.head_dims[1:]
    return [
        *lines,
        "target=clusters",
        "target@target.values=pixels_channel_norm",
        f"target.values.normalize={normalize}",
        f"target.num_prototypes={s.num_prototypes}",
        f"target.loss.eps={s.sinkhorn_eps}",
        f"target.loss.iterations={s.sinkhorn_iterations}",
        f"target.hidden_dims={[] if s.target_type in DINO else hidden}",
        f"target.dim={'null' if s.target_type in DINO else dim}",
    ]


def _build(case: Case, s: Settings, plan: MaskPlan, features: Tensor | None) -> MaskedModel:
    config = experiment(case, overrides(s))
    if features is not None:
        given = given_target(features.shape[2])
        if s.loss_func == "L2":
            config.targets.main = given
        else:
            config.target.values = given
    model = build(case, config).eval()
    model.maskings["main"] = GivenMasking(plan=plan)
    target = model.targets["main"]
    if s.decoder_num_classes not in (None, target.dim):
        raise CannotReplayError(
            f"{case.name}: decoder_num_classes is {s.decoder_num_classes}, but the target has {target.dim} "
            "values per token"
        )
    if features is not None:
        inner = target.values if isinstance(target, ClusterTarget) else target
        assert isinstance(inner, GivenTarget)
        inner.values = features
    return model


def _features(case: Case, s: Settings, plan: MaskPlan) -> Float[Tensor, "b l d"]:
    """What the frozen network made of the clip, at all cells; those nobody reads can be zero.

    It is given as what a network says of single frames, at all tokens of the clip, or, normalised already, at
    the hidden ones.
    """
    shapes = {name: tuple(value.shape) for name, value in case.inputs.items() if value.dim() >= 3}
    names = [name for name in shapes if name not in ("videos", "mask")]
    if len(names) != 1:
        raise CannotReplayError(
            f"{case.name}: target_type={s.target_type} needs the teacher's features as the one further input "
            f"of three dimensions; there are {', '.join(names) or 'none'}"
        )
    given, batch = case.input(names[0]), len(plan.mask)
    given = given.flatten(0, 1) if given.dim() == 4 else given
    frames, cells = s.grid.shape[0], plan.grid.num_cells
    if len(given) == batch * frames and len(given) != batch:
        given = _per_frame(case, given, s).unflatten(0, (batch, frames)).flatten(1, 2)
    if given.shape[1] == plan.hide.shape[1]:
        everywhere = given.new_zeros(batch, cells, given.shape[2])
        return everywhere.scatter(1, plan.hide[..., None].expand_as(given), given)
    if given.shape[:2] != (batch, cells):
        raise CannotReplayError(
            f"{case.name}: input {names[0]!r} of {shapes[names[0]]} is of no known layout"
        )
    return normalize_features(given, "tokens") if s.normlize_target else given


def _per_frame(case: Case, tokens: Float[Tensor, "f n d"], s: Settings) -> Float[Tensor, "f m d"]:
    """A frame's tokens at the cells of the student: without prefix, resized as those of DINOv2 are."""
    rows, cols = s.grid.shape[1:]
    for prefix in PREFIXES:
        side = isqrt(max(tokens.shape[1] - prefix, 0))
        if tokens.shape[1] - prefix == rows * cols:
            return tokens[:, prefix:]
        if s.target_type == "dino_v2" and side * side == tokens.shape[1] - prefix:
            maps = tokens[:, prefix:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
            return interpolate(maps, size=(rows, cols), mode="bilinear").flatten(2).transpose(1, 2)
    raise CannotReplayError(
        f"{case.name}: {tokens.shape[1]} tokens per frame belong to no {rows} x {cols} cells"
    )


def _losses(step: Step) -> Tensors:
    """The terms under the names of the cases."""
    assert step.total is not None
    metrics = step.metrics["main"]
    terms = {
        "loss_target_scores_vs_pred_assign": "target_loss",
        "loss_pred_scores_vs_target_assign": "predicted_loss",
    }
    found = {name: metrics[ours] for name, ours in terms.items() if ours in metrics}
    distance = {} if found else {"recon": step.total, "mse": step.total}
    return {"total": step.total, **distance, **found}


def _tensors(step: Step, model: MaskedModel, plan: MaskPlan) -> Tensors:
    encoded, prediction = step.outputs["student"], step.predictions["student"]["main"]
    target = model.targets["main"]
    labels = align(target(step), like=prediction)
    found = {"mask": plan.mask, "latent": encoded.tokens, "pred": prediction.tokens, "labels": labels}
    if not isinstance(target, ClusterTarget):
        return found
    loss = target.loss
    assert isinstance(loss, SwappedAssignments)
    found["proj"] = target.projection(labels)
    for side, scores in zip(("pred", "target"), target.compare(prediction.tokens, labels), strict=True):
        shares = loss.assign(scores, None)
        found |= {f"scores_{side}": scores, f"q_{side}": shares, f"assign_{side}": shares.argmax(dim=-1)}
    target.after_step()
    return {**found, "prototypes_after": target.prototypes.detach()}
