"""Pre-training steps of MaskAlign (Xue et al., arXiv 2211.08887)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from maskpre.checkpoints.infer import mlp_ratio
from maskpre.checkpoints.names_maskalign import NAMES, pretraining_keys
from maskpre.checkpoints.names_transformers import clip_keys, vit_keys
from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.golden.mae_settings import PlainViTSettings
from maskpre.golden.plans import plan_tensors
from maskpre.golden.pretraining import Experiment, experiment, gradients, official_gradients
from maskpre.model import MaskedModel
from maskpre.optim import weight_decay_split
from maskpre.teachers.frozen import FrozenTeacher
from maskpre.types import Located, Step, Taps, align

REGION = "visible+cls"
LOSSES = {"smoothl1": "smooth_l1", "l2": "mse", "l1": "l1"}
MASKINGS = {"attention": "attentive", "random": "random"}
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Kind:
    """A teacher's class: its configuration, names, and the epsilon that transformers gives its norms."""

    config: str
    prefix: str
    rename: Callable[[Mapping[str, Tensor]], Tensors]
    eps: float


KINDS = {
    "clip": Kind("clip", "clip_model.", clip_keys, 1e-5),
    "dino": Kind("dino", "dino_model.", vit_keys, 1e-12),
}


@dataclass
class TeacherSettings:
    """The teacher's sizes; sizes that are None are told by its weights or the student's picture."""

    kind: str
    width: int
    layers: int
    heads: int
    mlp: int
    patch_size: int | None = None
    img_size: int | None = None


@dataclass(kw_only=True)
class Settings(PlainViTSettings):
    """The official constructor's arguments and the step's."""

    mask_ratio: float
    mask_type: str
    fusion_type: str
    target_norm: str
    loss_type: str
    head_type: str
    loss_weights: str
    teacher: TeacherSettings
    mlp_ratio: float = 4.0


def overrides(case: Case, s: Settings, patch_size: int) -> list[str]:
    """The experiment `maskalign` with a case's sizes and switches."""
    t = s.teacher
    return [
        "experiment=maskalign",
        f"masking={_known(case, 'mask_type', s.mask_type, MASKINGS)}",
        f"loss={_known(case, 'loss_type', s.loss_type, LOSSES)}",
        f"teacher={_known(case, 'teacher.kind', t.kind, KINDS).config}",
        f"masking.ratio={s.mask_ratio}",
        f"predictor.fusion={s.fusion_type}",
        f"predictor.head={s.head_type}",
        f"target.layers={s.loss_weights}",
        f"target.normalize={s.target_norm}",
        f"data.mean={IMAGENET[0]}",
        f"data.std={IMAGENET[1]}",
        *s.sizes(),
        f"encoder.mlp_ratio={s.mlp_ratio}",
        "teacher.weights=null",
        f"teacher.img_size={t.img_size or s.img_size}",
        f"teacher.patch_size={patch_size}",
        f"teacher.embed_dim={t.width}",
        f"teacher.depth={t.layers}",
        f"teacher.num_heads={t.heads}",
        f"teacher.mlp_ratio={mlp_ratio(t.mlp, t.width)}",
        f"teacher.norm_eps={KINDS[t.kind].eps}",
    ]


def _known(case: Case, name: str, value: str, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise CannotReplayError(f"{case.name}: {name} {value!r} is unknown; known are {', '.join(choices)}")
    return choices[value]


def replay(case: Case) -> Replay:
    """A training step as the experiment runs it; what it leaves out, from the same parts asked for all."""
    s = case.settings(Settings)
    kind: Kind = _known(case, "teacher.kind", s.teacher.kind, KINDS)
    teacher = kind.rename({n: v for n, v in case.weights.items() if n.startswith(kind.prefix)})
    patch_size = s.teacher.patch_size or teacher["patch_embed.proj.weight"].shape[-1]
    config = experiment(case, overrides(case, s, patch_size))
    model, step = _run(case, s, config, teacher)
    assert step.total is not None
    step.total.backward()
    everything = config.copy()
    everything.target.layers = "mean"
    full, full_step = _run(case, s, everything, teacher, tap_all=True)
    return Replay(
        loss=step.total,
        losses=_layer_losses(full, full_step, s.teacher.layers),
        tensors=_tensors(full, full_step, s.teacher.layers),
        gradients=gradients(model),
        expected_gradients=pretraining_keys(official_gradients(case)),
        extras=_extras(model, full, config.optim),
    )


def _run(
    case: Case, s: Settings, config: DictConfig, teacher: Tensors, *, tap_all: bool = False
) -> tuple[MaskedModel, Step]:
    """A model with the case's weights, and its step on the case's pictures; `tap_all` keeps every layer."""
    drawn = case.input("noise")
    # The official draws are e ~ Exp(1); uniform numbers become them.
    noise = {"mask": -torch.expm1(-drawn) if s.mask_type == "attention" else drawn}
    run = Experiment(case, config, pretraining_keys(case.weights), noise=noise, eps=s.eps)
    model = run.build(region=REGION)
    frozen = model.teachers["teacher"]
    assert isinstance(frozen, FrozenTeacher)
    frozen.fill(teacher)
    # Heads that no loss reads are left out of the model.
    wanted = model.state_dict().keys()
    unread = {n for n in run.weights if n.startswith("predictors.main.heads.") and n not in wanted}
    Experiment(case, config, {n: v for n, v in run.weights.items() if n not in unread}).load(model)
    if tap_all:
        depth = s.teacher.layers
        model.taps["teacher"] |= Taps(hidden=frozenset(range(depth + 1)), attention=frozenset({depth}))
        model.taps["student"] |= Taps(hidden=frozenset(range(1, s.depth + 1)))
    return model, run.run(model)


def _stacked(located: Located, parts: int) -> Tensor:
    """Values of the class token and the cells, one layer after another."""
    return torch.stack(located.with_class().chunk(parts, dim=2))


def _pair(model: MaskedModel, step: Step, layers: int) -> tuple[Tensor, Tensor]:
    """Predictions and targets at the same tokens (layers, b, n, k)."""
    prediction, target = step.predictions["student"]["main"], model.targets["main"](step)
    there = Located(align(target, like=prediction), prediction.grid, prediction.ids, prefix=target.prefix)
    return _stacked(prediction, layers), _stacked(there, layers)


def _layer_losses(model: MaskedModel, step: Step, layers: int) -> Tensors:
    loss = model.objectives["main"].loss
    pairs = zip(*_pair(model, step, layers), strict=True)
    return {f"layer{i}": loss(ours, theirs, None).value for i, (ours, theirs) in enumerate(pairs)}


def _tensors(model: MaskedModel, step: Step, layers: int) -> Tensors:
    plan = plan_tensors(step.plans["student"])
    teacher, student = step.outputs["teacher"], step.outputs["student"]
    attention = teacher.attention[layers]
    predictions, targets = _pair(model, step, layers)
    return {
        **plan,
        "importance": attention.mean(dim=1)[:, 1:],
        "teacher_cls_attention_last": attention,
        "teacher_hidden": torch.stack([teacher.hidden[i] for i in range(layers + 1)]),
        "student_hidden": torch.stack([student.hidden[i] for i in sorted(student.hidden)]),
        "student_out": predictions,
        "teacher_target": targets,
    }


def _extras(model: MaskedModel, full: MaskedModel, optim: DictConfig) -> dict[str, list[str]]:
    """Which official parameters decay, and which get no gradient: there all but the table can train."""
    for name, parameter in full.named_parameters():
        parameter.requires_grad_(not name.endswith("pos_embed"))
    decayed, exempt = weight_decay_split(full.named_parameters(), optim.decay_policy)
    moved = gradients(model)
    unmoved = [name for name in (*decayed, *exempt) if name not in moved]
    return {
        "weight_decay": sorted(map(NAMES.official_name, decayed)),
        "no_weight_decay": sorted(map(NAMES.official_name, exempt)),
        "trainable_without_gradient": sorted(map(NAMES.official_name, unmoved)),
    }
