"""Which parameters decay, and at which share of the learning rate each layer moves."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from maskpre.errors import UserError

DecayPolicyName = Literal[
    "mae",
    "mae_finetune",
    "maskalign",
    "mmpretrain",
    "simmim_swin",
    "simmim_swin_finetune",
    "simmim_vit",
    "spark",
    "videomae",
    "all",
]
VIT_BLOCK = r"blocks3?\.(\d+)\."
NamedParameters = Iterable[tuple[str, nn.Parameter]]
ParamGroup = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DecayPolicy:
    """Rule that exempts parameters from weight decay.

    `exempt_vectors` covers scalars, 1-D parameters and names ending in `.bias`; `exempt_leaves` the last
    component of the name; `exempt_substrings` any part of it.
    """

    exempt_vectors: bool = True
    exempt_leaves: tuple[str, ...] = ()
    exempt_substrings: tuple[str, ...] = ()

    def decays(self, name: str, parameter: torch.Tensor) -> bool:
        """Whether weight decay applies to this parameter."""
        if self.exempt_vectors and (parameter.ndim <= 1 or name.endswith(".bias")):
            return False
        if name.rpartition(".")[2] in self.exempt_leaves:
            return False
        return not any(part in name for part in self.exempt_substrings)


DECAY_POLICIES: Mapping[DecayPolicyName, DecayPolicy] = {
    # timm's add_weight_decay: class and mask token have three dimensions and are decayed.
    "mae": DecayPolicy(),
    "mae_finetune": DecayPolicy(exempt_leaves=("cls_token", "pos_embed")),
    # The matrix that mixes the student's layers.
    "maskalign": DecayPolicy(exempt_leaves=("mixing",)),
    # mmpretrain's custom keys match anywhere; "ln" are its layer norms, which timm calls "norm".
    "mmpretrain": DecayPolicy(
        exempt_vectors=False,
        exempt_substrings=("bias", "ln", "norm", "pos_embed", "cls_token", "mask_token"),
    ),
    # In pre-training the official keyword for the relative-position tables matches no name: they decay.
    "simmim_swin": DecayPolicy(exempt_leaves=("absolute_pos_embed", "mask_token")),
    "simmim_swin_finetune": DecayPolicy(
        exempt_leaves=("absolute_pos_embed", "mask_token"),
        exempt_substrings=("relative_position_bias_table",),
    ),
    "simmim_vit": DecayPolicy(exempt_leaves=("cls_token", "pos_embed")),
    # "gamma" is ConvNeXt's layer scale.
    "spark": DecayPolicy(exempt_substrings=("cls_token", "pos_embed", "mask_token", "gamma")),
    "videomae": DecayPolicy(exempt_leaves=("pos_embed", "cls_token", "mask_token", "logit_scale")),
    "all": DecayPolicy(exempt_vectors=False),
}


def weight_decay_split(
    named_parameters: NamedParameters, policy: DecayPolicyName
) -> tuple[list[str], list[str]]:
    """Names of the trainable parameters that decay and of those that do not, in the given order."""
    decayed: list[str] = []
    exempt: list[str] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            (decayed if DECAY_POLICIES[policy].decays(name, parameter) else exempt).append(name)
    return decayed, exempt


def layer_decay_table(
    names: Iterable[str], *, decay: float, naming: Literal["timm", "official"] = "timm"
) -> dict[str, float]:
    """Layer-wise learning-rate scales `decay ** (N + 1 - id)` of a ViT, BEiT, Swin or convnet.

    ViT: tokens, positions and patch embedding have id 0, block i has i + 1, the rest N + 1. ConvViT: the same
    for its third stage's blocks, everything before them has id 0. Swin: blocks are
    counted over the stages, and the merging that follows stage k has the id of that stage's last block. timm
    names this merging `layers.(k+1).downsample`, the official code `layers.k.downsample` (`naming`).
    ResNet and ConvNeXt: groups of blocks as SparK fine-tunes them.
    Raises UserError for names of any other kind of network.
    """
    names = list(names)
    swin_blocks = [match for name in names if (match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))]
    vit_blocks = [int(match[1]) for name in names if (match := re.match(VIT_BLOCK, name))]
    if vit_blocks:
        top = max(vit_blocks) + 2
        ids = {name: _vit_layer(name, top) for name in names}
    elif swin_blocks:
        stages = sorted({(int(match[1]), int(match[2])) for match in swin_blocks})
        depths = [sum(stage == k for stage, _ in stages) for k in range(stages[-1][0] + 1)]
        top = sum(depths) + 1
        ids = {name: _swin_layer(name, depths, after_stage=naming == "official") for name in names}
    elif any(re.match(r"stages\.\d+\.blocks\.", name) for name in names):
        ids, top = _convnext_layers(names)
    elif any(re.match(r"layer4\.\d+\.", name) for name in names):
        ids, top = _resnet_layers(names)
    else:
        raise UserError(
            "layer_decay needs a network with `blocks.*` (ViT), `blocks3.*` (ConvViT), "
            "`layers.*.blocks.*` (Swin), `stages.*.blocks.*` (ConvNeXt) or `layer4.*` (ResNet)"
        )
    return {name: decay ** (top - layer) for name, layer in ids.items()}


def _vit_layer(name: str, top: int) -> int:
    first = name.partition(".")[0]
    if re.fullmatch(r"cls_token|reg_token|mask_token|pos_embed|patch_embed\d?|blocks[12]", first):
        return 0
    block = re.match(VIT_BLOCK, name)
    return int(block[1]) + 1 if block else top


def _swin_layer(name: str, depths: list[int], *, after_stage: bool) -> int:
    if name == "mask_token" or name.startswith("patch_embed."):
        return 0
    if block := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
        return sum(depths[: int(block[1])]) + int(block[2]) + 1
    if merging := re.match(r"layers\.(\d+)\.downsample\.", name):
        return sum(depths[: int(merging[1]) + int(after_stage)])
    return sum(depths) + 1


def _depth(names: list[str], pattern: str) -> int:
    """Blocks whose number `pattern` captures."""
    return 1 + max(int(hit[1]) for name in names if (hit := re.match(pattern, name)))


def _convnext_layers(names: list[str]) -> tuple[dict[str, int], int]:
    """ConvNeXt's layers (Liu et al. 2022): the third stage counts by three blocks, the others as one each."""
    last = 3 + math.ceil(_depth(names, r"stages\.2\.blocks\.(\d+)\.") / 3)

    def layer(name: str) -> int:
        if name.startswith("stem."):
            return 0
        if not (stage := re.match(r"stages\.(\d+)\.(?:blocks\.(\d+)|downsample)", name)):
            return last + 1
        number = int(stage[1])
        if number == 2 and stage[2] is not None:
            return 3 + int(stage[2]) // 3
        return last if number == 3 else number + 1

    return {name: layer(name) for name in names}, last + 1


def _resnet_layers(names: list[str]) -> tuple[dict[str, int], int]:
    """SparK's layers of a ResNet: the second and third stage count by groups of blocks, others as one each.

    Two and three blocks make a group, four and four in networks with at least 30 blocks in the third stage.
    """
    second, third = (_depth(names, rf"layer{stage}\.(\d+)\.") for stage in (2, 3))
    size2, size3 = (4, 4) if third >= 30 else (2, 3)
    start3 = 2 + math.ceil(second / size2)
    last = start3 + math.ceil(third / size3)

    def layer(name: str) -> int:
        if not (stage := re.match(r"layer(\d)\.(\d+)\.", name)):
            return 0 if re.match(r"(conv1|bn1|maxpool)\.", name) else last + 1
        number, block = int(stage[1]), int(stage[2])
        return {1: 1, 2: 2 + block // size2, 3: start3 + block // size3, 4: last}[number]

    return {name: layer(name) for name in names}, last + 1


def build_param_groups(
    named_parameters: NamedParameters,
    *,
    lr: float,
    weight_decay: float,
    policy: DecayPolicyName,
    lr_scales: Mapping[str, float] | None = None,
) -> list[ParamGroup]:
    """Torch parameter groups, one per (layer scale, decay or not), lowest scale first.

    Each has `params`, `lr` (already multiplied by the scale), `lr_scale`, `weight_decay`, and a readable
    `name`. Frozen parameters are left out. Raises UserError if nothing is trainable.
    """
    groups: dict[tuple[float, bool], ParamGroup] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        scale = 1.0 if lr_scales is None else lr_scales[name]
        decays = DECAY_POLICIES[policy].decays(name, parameter)
        group = groups.setdefault((scale, decays), _empty_group(scale, decays, lr, weight_decay))
        group["params"].append(parameter)
    if not groups:
        raise UserError("nothing to optimise: no parameter requires a gradient")
    return [groups[key] for key in sorted(groups)]


def _empty_group(scale: float, decays: bool, lr: float, weight_decay: float) -> ParamGroup:
    return {
        "name": f"lr*{scale:.4g}/{'decay' if decays else 'no_decay'}",
        "params": [],
        "lr": lr * scale,
        "lr_scale": scale,
        "weight_decay": weight_decay if decays else 0.0,
    }
