"""Names of OpenAI's CLIP (github.com/openai/CLIP), which open_clip shares, and timm's."""

import re
from collections.abc import Mapping

from torch import Tensor

TOWER = "visual."
# What each pattern matches is timm's name.
NAMES = {
    r"class_embedding": "cls_token",
    r"conv1\.weight": "patch_embed.proj.weight",
    r"positional_embedding": "pos_embed",
    r"ln_pre\.(\w+)": "norm_pre.{}",
    r"ln_post\.(\w+)": "norm.{}",
    r"proj": "head.weight",
    r"transformer\.resblocks\.(\d+)\.ln_(\d)\.(\w+)": "blocks.{}.norm{}.{}",
    r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(\w+)": "blocks.{}.attn.qkv.{}",
    r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(\w+)": "blocks.{}.attn.proj.{}",
    r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(\w+)": "blocks.{}.mlp.fc1.{}",
    r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(\w+)": "blocks.{}.mlp.fc2.{}",
}


def clip_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower under timm's names; its projection, transposed, is called the head."""
    return {
        ours: _shaped(ours, value)
        for name, value in state.items()
        if name.startswith(TOWER) and (ours := _timm_name(name.removeprefix(TOWER))) is not None
    }


def _timm_name(name: str) -> str | None:
    matches = ((re.fullmatch(pattern, name), ours) for pattern, ours in NAMES.items())
    return next((ours.format(*match.groups()) for match, ours in matches if match), None)


def _shaped(name: str, value: Tensor) -> Tensor:
    if name == "head.weight":
        return value.T
    return value.reshape(1, -1, value.shape[-1]) if name in ("cls_token", "pos_embed") else value
