"""Checkpoint names of VideoMAE (github.com/MCG-NJU/VideoMAE, V2: OpenGVLab/VideoMAEv2) and this package's.

| official                         | MaskedModel, behind "encoder." or "predictors.main."        |
| -------------------------------- | ------------------------------------------------------------ |
| encoder.NAME                     | encoder.NAME                                                 |
| encoder_to_decoder.weight        | predictors.main.embed.weight                                 |
| mask_token                       | predictors.main.mask_token                                   |
| decoder.{blocks,norm}.NAME       | predictors.main.{blocks,norm}.NAME                           |
| decoder.head.NAME                | predictors.main.pred.NAME                                    |
| *.attn.q_bias, *.attn.v_bias     | *.attn.qkv.bias: the first and the last third, between zeros |
| *.attn.scale                     | *.attn.logit_scale                                           |
| *.gamma_1, *.gamma_2             | *.ls1.gamma, *.ls2.gamma                                     |

torch.compile puts `_orig_mod.` anywhere into official names. Position tables are in no checkpoint.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

PARTS = {
    "mask_token": "predictors.main.mask_token",
    "encoder_to_decoder.": "predictors.main.embed.",
    "decoder.head.": "predictors.main.pred.",
    "decoder.": "predictors.main.",
}
INSIDE = {
    r"\.attn\.scale$": ".attn.logit_scale",
    r"\.gamma_([12])$": r".ls\1.gamma",
}
COMPILED = "_orig_mod."
# What only pre-training checkpoints have.
BRIDGE = "encoder_to_decoder."


def _joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Biases of queries and values as one, with zeros for keys."""
    joined = dict(state)
    for name in [name for name in state if name.endswith(".q_bias")]:
        query, value = joined.pop(name), joined.pop(name.replace(".q_bias", ".v_bias"))
        bias = torch.cat([query, torch.zeros_like(query), value])
        joined[name.replace(".q_bias", ".qkv.bias")] = bias
    return joined


def _inside(name: str) -> str:
    for pattern, ours in INSIDE.items():
        name = re.sub(pattern, ours, name)
    return name


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the marks of wrappers."""
    return {name.replace(COMPILED, "").removeprefix("module."): value for name, value in state.items()}


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the marks of wrappers, with biases joined and the parts of blocks renamed."""
    bare = unwrapped(state)
    return {_inside(name): value for name, value in _joined(bare).items()}


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official checkpoint's tensors, or their gradients, under MaskedModel's names.

    Of a fine-tuned one, the encoder's.
    """
    plain = _plain(state)
    if not any(name.startswith(BRIDGE) for name in plain):
        return {f"encoder.{name}": value for name, value in encoder_keys(state).items()}
    renamed = {}
    for name, value in plain.items():
        part = next((part for part in PARTS if name.startswith(part)), "")
        renamed[PARTS[part] + name.removeprefix(part) if part else name] = value
    return renamed


def official_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A MaskedModel's tensors, or their gradients, under the official names: inverse of `pretraining_keys`.

    Raises ValueError for a tensor that VideoMAE has nothing like.
    """
    official = {}
    for name, value in state.items():
        renamed = _official(name)
        if renamed.endswith(".qkv.bias"):
            query, _, val = value.chunk(3)
            official[renamed.replace(".qkv.bias", ".q_bias")] = query
            official[renamed.replace(".qkv.bias", ".v_bias")] = val
        else:
            official[renamed] = value
    return official


def _official(name: str) -> str:
    part = next((part for part, ours in PARTS.items() if name.startswith(ours)), None)
    if part is None and (not name.startswith("encoder.") or name == "encoder.mask_token"):
        raise ValueError(f"{name!r} has no name in VideoMAE's official checkpoints")
    renamed = name if part is None else part + name.removeprefix(PARTS[part])
    renamed = renamed.replace(".attn.logit_scale", ".attn.scale")
    return re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", renamed)


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder (and head, if any) of a pre-training or fine-tuning checkpoint under timm's names."""
    plain = _plain(state)
    if any(name.startswith(BRIDGE) for name in plain):
        plain = {name: value for name, value in plain.items() if name.startswith("encoder.")}
    return {name.removeprefix("encoder.").removeprefix("backbone."): value for name, value in plain.items()}
