"""Names of image towers in Hugging Face's transformers (CLIP, and ViT for DINO) and timm's."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

CLIP_PREFIX = r"(?:clip_model\.)?(?:vision_model\.)?"
VIT_PREFIX = r"(?:dino_model\.|vit\.)?"
# What each pattern matches is timm's name; `{}` is the number of the block, q, k and v are joined later.
CLIP = {
    r"embeddings\.class_embedding": "cls_token",
    r"embeddings\.patch_embedding\.(\w+)": "patch_embed.proj.{}",
    r"embeddings\.position_embedding\.weight": "pos_embed",
    r"pre_layrnorm\.(\w+)": "norm_pre.{}",
    r"post_layernorm\.(\w+)": "norm.{}",
    r"visual_projection\.weight": "head.weight",
    r"encoder\.layers\.(\d+)\.layer_norm(\d)\.(\w+)": "blocks.{}.norm{}.{}",
    r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)": "blocks.{}.attn.{}.{}",
    r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)": "blocks.{}.attn.proj.{}",
    r"encoder\.layers\.(\d+)\.mlp\.fc(\d)\.(\w+)": "blocks.{}.mlp.fc{}.{}",
}
VIT = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.patch_embeddings\.projection\.(\w+)": "patch_embed.proj.{}",
    r"embeddings\.position_embeddings": "pos_embed",
    r"layernorm\.(\w+)": "norm.{}",
    r"classifier\.(\w+)": "head.{}",
    r"encoder\.layer\.(\d+)\.layernorm_before\.(\w+)": "blocks.{}.norm1.{}",
    r"encoder\.layer\.(\d+)\.layernorm_after\.(\w+)": "blocks.{}.norm2.{}",
    r"encoder\.layer\.(\d+)\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.(\w+)": "blocks.{}.attn.{}.{}",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)": "blocks.{}.attn.proj.{}",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)": "blocks.{}.mlp.fc1.{}",
    r"encoder\.layer\.(\d+)\.output\.dense\.(\w+)": "blocks.{}.mlp.fc2.{}",
}


def clip_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP's image tower under timm's names; its projection is called the head. Text is left out."""
    return _shaped(_join(_rename(state, CLIP, CLIP_PREFIX)))


def vit_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViT under timm's names; its pooler, which no published feature passes, is left out."""
    return _shaped(_join(_rename(state, VIT, VIT_PREFIX)))


def _rename(state: Mapping[str, Tensor], names: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        for pattern, ours in names.items():
            if match := re.fullmatch(prefix + pattern, name):
                renamed[ours.format(*match.groups())] = value
    return renamed


def _join(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as the one layer they are in timm."""
    joined: dict[str, Tensor] = {}
    for name, value in state.items():
        match = re.fullmatch(r"(.*\.attn\.)([qkv])\.(\w+)", name)
        if match is None:
            joined[name] = value
        elif match[2] == "q":
            parts = [state[f"{match[1]}{part}.{match[3]}"] for part in "qkv"]
            joined[f"{match[1]}qkv.{match[3]}"] = torch.cat(parts)
    return joined


def _shaped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Class token and positions with the leading dimensions they have in timm."""
    shaped = dict(state)
    for name in shaped.keys() & {"cls_token", "pos_embed"}:
        shaped[name] = shaped[name].reshape(1, -1, shaped[name].shape[-1])
    return shaped
