"""Pre-training steps of SimMIM (Xie et al., arXiv 2111.09886)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Int
from torch import Tensor

from maskpre.checkpoints.names_simmim import pretraining_keys
from maskpre.golden.case import CannotReplayError, Case
from maskpre.golden.classify import official_names
from maskpre.golden.compare import Replay
from maskpre.golden.pretraining import Experiment, experiment, gradients, official_gradients
from maskpre.golden.simmim_encoders import check_stride, encoder_settings
from maskpre.model import MaskedModel
from maskpre.ops.patchify import unpatchify
from maskpre.optim import DecayPolicyName, weight_decay_split
from maskpre.types import Grid, MaskPlan, refine


@dataclass
class Settings:
    """The step's settings; `encoder` are the official constructor's arguments."""

    type: str
    img_size: int
    encoder: dict[str, Any]
    encoder_stride: int
    mask_patch_size: int
    mask_ratio: float
    batch: int


def replay(case: Case) -> Replay:
    """The case's mask; loss and gradients as in training, which predicts hidden cells only."""
    s = case.settings(Settings)
    encoder = encoder_settings(case, s.type, s.encoder)
    check_stride(case, encoder, s.encoder_stride)
    config = experiment(
        case,
        [
            "experiment=simmim",
            *encoder.overrides(),
            f"data.image_size={s.img_size}",
            f"masking.ratio={s.mask_ratio}",
            f"masking.unit_size={s.mask_patch_size}",
        ],
    )
    rename = partial(pretraining_keys, kind=encoder.kind)
    plan = _plan(case, s, encoder.patch_size)
    run = Experiment(case, config, rename(case.weights), plan=plan)
    model = run.build()
    run.load(model)
    step = run.run(model)
    assert step.total is not None
    step.total.backward()
    grid, encoded = model.encoder.spec.out_grid, step.outputs["student"]
    return Replay(
        loss=step.total,
        losses={"l1": step.losses["main"]},
        tensors={
            "latent": encoded.tokens.transpose(1, 2).unflatten(2, grid.shape),
            "pred": unpatchify(run.predict_everywhere(), grid),
        },
        gradients=gradients(model),
        expected_gradients=rename(official_gradients(case)),
        extras=_decay_split(model, encoder.pretrain_policy, official_names(case.weights, rename)),
    )


def _plan(case: Case, s: Settings, patch_size: int) -> MaskPlan:
    """The case's mask as a plan of whole units."""
    size, unit = (s.img_size, s.img_size), (s.mask_patch_size, s.mask_patch_size)
    units, cells = Grid.over(size, unit), Grid.over(size, (patch_size, patch_size))
    mask: Int[Tensor, "b h w"] = case.input("mask")
    scale = s.mask_patch_size // patch_size
    hidden = mask[:, ::scale, ::scale].flatten(1).bool()
    counts = hidden.sum(dim=1)
    if bool((refine(hidden, units, cells) != mask.flatten(1)).any()) or bool((counts != counts[0]).any()):
        raise CannotReplayError(f"{case.name}: the mask is not as many whole units of every sample")
    return MaskPlan.from_mask(hidden, num_hidden=int(counts[0]), grid=units).on(cells)


def _decay_split(
    model: MaskedModel, policy: DecayPolicyName, official: Mapping[str, str]
) -> dict[str, list[str]]:
    """Weight-decay split of the experiment under official names."""
    decayed, exempt = weight_decay_split(model.named_parameters(), policy)
    return {
        "weight_decay": sorted(official[name] for name in decayed),
        "no_weight_decay": sorted(official[name] for name in exempt),
    }
