"""Fine-tuning forwards of SimMIM's encoders from a pre-training checkpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from maskpre.checkpoints.load import load_encoder
from maskpre.checkpoints.names_simmim import encoder_keys
from maskpre.golden.case import Case, Tensors
from maskpre.golden.classify import Rename, classify, decay_groups, official_names
from maskpre.golden.compare import Replay
from maskpre.golden.pretraining import gradients, official_gradients
from maskpre.golden.simmim_encoders import check_stride, encoder_settings

LOADED = "loaded/"
GROUPS = "layer_decay_groups_name_to_lrscale_wd"
# Stands for a tensor where only its name matters.
NOTHING = torch.empty(0)


@dataclass
class Settings:
    """The fine-tuned encoder's arguments, how the pre-trained one differed, and the optimiser's numbers.

    What the pre-trained one was like is told by the shapes of the weights.
    """

    type: str
    img_size: int
    encoder: dict[str, Any]
    encoder_stride: int
    num_classes: int
    batch: int
    layer_decay: float = 0.65
    weight_decay: float = 0.05
    lr: float = 1.25e-3
    pretrain_img_size: int | None = None
    pretrain_encoder_overrides: dict[str, Any] = field(default_factory=dict)


def replay(case: Case) -> Replay:
    """The classifier as `load_timm` makes it, with the case's head."""
    s = case.settings(Settings)
    encoder = encoder_settings(case, s.type, s.encoder)
    encoder_settings(case, s.type, {**s.encoder, **s.pretrain_encoder_overrides})
    check_stride(case, encoder, s.encoder_stride)
    rename = partial(encoder_keys, kind=encoder.kind)
    net = encoder.architecture(s.img_size).build(num_classes=s.num_classes, global_pool=encoder.pool)
    load_encoder(net.double().eval(), rename(case.weights), source=case.name, kind="golden case")
    out = classify(net, case)
    out.loss.backward()
    groups = decay_groups(
        net, layer_decay=s.layer_decay, weight_decay=s.weight_decay, policy=encoder.finetune_policy
    )
    return Replay(
        loss=out.loss,
        losses={"cross_entropy": out.loss},
        tensors={"features": out.features, "logits": out.logits, **_loaded(net, rename, case.outputs)},
        gradients=gradients(net),
        expected_gradients=rename(official_gradients(case)),
        extras={GROUPS: _under_official_names(groups, rename, case.extras.get(GROUPS, {}))},
    )


def _loaded(net: nn.Module, rename: Rename, wanted: Iterable[str]) -> Tensors:
    """What the loader made of the tensors that the case lists by official name."""
    names = [name for name in wanted if name.startswith(LOADED)]
    state = net.state_dict()
    official = official_names({name.removeprefix(LOADED): NOTHING for name in names}, rename)
    return {f"{LOADED}{name}": state[ours] for ours, name in official.items()}


def _under_official_names(
    groups: Mapping[str, list[float]], rename: Rename, wanted: Iterable[str]
) -> dict[str, list[float]]:
    """The same groups; parameters that the case doesn't list keep their names."""
    official = official_names(dict.fromkeys(wanted, NOTHING), rename)
    return {official.get(name, name): group for name, group in groups.items()}
