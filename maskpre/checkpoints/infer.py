"""Architectures told from the shapes of their weights, for checkpoints that carry no configuration."""

import math
import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from maskpre.checkpoints.architecture import CONV_VIT, VIDEO_VIT, Architecture
from maskpre.checkpoints.resize import TABLE, square_grid, square_window
from maskpre.checkpoints.swin_extras import SwinExtras
from maskpre.errors import UserError

# Heads of the published plain ViTs: nothing in their weights depends on the number.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that `pattern` captures in a name."""
    return 1 + max(int(hit[1]) for name in state if (hit := re.match(pattern, name)))


def mlp_ratio(hidden: int, width: int) -> float:
    """The ratio that timm turns into `hidden` by truncating width * ratio."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _common(state: Mapping[str, Tensor], *, block: str) -> dict[str, Any]:
    """Sizes every kind has: of the patch embedding, and of the first block's MLP."""
    width, channels, _, patch = state["patch_embed.proj.weight"].shape
    hidden, block_width = state[f"{block}.mlp.fc1.weight"].shape
    return {
        "in_chans": channels,
        "patch_size": patch,
        "embed_dim": width,
        "mlp_ratio": mlp_ratio(hidden, block_width),
    }


def _heads(width: int) -> int:
    if width not in HEADS:
        raise UserError(
            f"a ViT of width {width} could have any number of heads; known are the widths {sorted(HEADS)}. "
            "Load a checkpoint that carries its configuration instead"
        )
    return HEADS[width]


def _plain_vit(state: Mapping[str, Tensor], *, prefix_positions: int) -> dict[str, Any]:
    """A plain ViT's sizes, whose table of positions begins with `prefix_positions` rows of no patch."""
    sizes = _common(state, block="blocks.0")
    side, _ = square_grid(state["pos_embed"].shape[1], prefix_positions)
    return sizes | {
        "img_size": side * sizes["patch_size"],
        "depth": _count(state, r"blocks\.(\d+)\."),
        "num_heads": _heads(sizes["embed_dim"]),
    }


def vit(state: Mapping[str, Tensor]) -> Architecture:
    """A plain ViT with a class token; UserError if its number of heads can't be known from its width."""
    return Architecture("vit_base_patch16_224", _plain_vit(state, prefix_positions=1))


def dinov2(state: Mapping[str, Tensor]) -> Architecture:
    """A plain ViT of DINOv2 with register tokens, whose positions are those of the patches."""
    sizes = _plain_vit(state, prefix_positions=0)
    return Architecture("vit_base_patch14_reg4_dinov2", {**sizes, "reg_tokens": state["reg_token"].shape[1]})


def clip(state: Mapping[str, Tensor]) -> Architecture:
    """The image tower of a CLIP as OpenAI trained it, with its fast GELU."""
    return Architecture("vit_base_patch16_clip_quickgelu_224", _plain_vit(state, prefix_positions=1))


def video_vit(state: Mapping[str, Tensor]) -> Architecture:
    """A VideoMAE for the published 16 frames of 224 pixels, which its weights don't tell.

    Raises UserError if its number of heads can't be known from its width.
    """
    width, channels, tubelet, _, patch = state["patch_embed.proj.weight"].shape
    hidden, _ = state["blocks.0.mlp.fc1.weight"].shape
    scales = state.get("blocks.0.attn.logit_scale")
    options = {
        "img_size": 224,
        "num_frames": 16,
        "in_chans": channels,
        "patch_size": patch,
        "tubelet_size": tubelet,
        "embed_dim": width,
        "depth": _count(state, r"blocks\.(\d+)\."),
        "num_heads": _heads(width) if scales is None else len(scales),
        "mlp_ratio": mlp_ratio(hidden, width),
        "qkv_bias": "no_key" if "blocks.0.attn.qkv.bias" in state else "none",
        "scores": "dot" if scales is None else "cosine",
        "init_values": 0.1 if "blocks.0.ls1.gamma" in state else None,
    }
    return Architecture(VIDEO_VIT, options)


def beit(state: Mapping[str, Tensor]) -> Architecture:
    """SimMIM's ViT: heads and grid are told by a relative-position table, else by published sizes."""
    sizes = _common(state, block="blocks.0")
    shared = f"rel_pos_bias.{TABLE}" in state
    own = f"blocks.0.attn.{TABLE}" in state
    if shared or own:
        table = state[f"rel_pos_bias.{TABLE}" if shared else f"blocks.0.attn.{TABLE}"]
        (side, _), heads = square_window(len(table)), table.shape[1]
    else:
        (side, _), heads = square_grid(state["pos_embed"].shape[1], 1), _heads(sizes["embed_dim"])
    sizes |= {
        "img_size": side * sizes["patch_size"],
        "depth": _count(state, r"blocks\.(\d+)\."),
        "num_heads": heads,
        "qkv_bias": "blocks.0.attn.q_bias" in state,
        "init_values": 0.1 if "blocks.0.gamma_1" in state else 0.0,
        "use_abs_pos_emb": "pos_embed" in state,
        "use_rel_pos_bias": own,
        "use_shared_rel_pos_bias": shared,
    }
    return Architecture("beit_base_patch16_224", sizes)


def swin(state: Mapping[str, Tensor]) -> Architecture:
    """A Swin: windows and heads are told by its tables, the picture by the first stage's attention mask.

    Without that mask the first stage is one window, and the picture as large.
    """
    sizes = _common(state, block="layers.0.blocks.0")
    stages = range(_count(state, r"layers\.(\d+)\."))
    tables = [state[f"layers.{stage}.blocks.0.attn.{TABLE}"] for stage in stages]
    window, _ = square_window(len(tables[0]))
    mask = state.get("layers.0.blocks.1.attn_mask")
    windows = 1 if mask is None else isqrt(len(mask))
    sizes |= {
        "img_size": windows * window * sizes["patch_size"],
        "depths": tuple(_count(state, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in stages),
        "num_heads": tuple(table.shape[1] for table in tables),
        "window_size": window,
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in state,
    }
    extras = SwinExtras("patch_embed.norm.weight" in state, "absolute_pos_embed" in state)
    return Architecture("swin_base_patch4_window7_224", sizes, extras)


def conv_vit(state: Mapping[str, Tensor]) -> Architecture:
    """ConvMAE's network; UserError if its number of heads can't be known from its width."""
    stages = (1, 2, 3)
    kernels = [state[f"patch_embed{stage}.proj.weight"].shape for stage in stages]
    patch_sizes, embed_dims = [kernel[3] for kernel in kernels], [kernel[0] for kernel in kernels]
    hidden = [state[f"blocks{stage}.0.mlp.fc1.weight"].shape[0] for stage in stages]
    side, _ = square_grid(state["pos_embed"].shape[1], 0)
    sizes = {
        "img_size": side * math.prod(patch_sizes),
        "in_chans": kernels[0][1],
        "patch_sizes": patch_sizes,
        "embed_dims": embed_dims,
        "depths": [_count(state, rf"blocks{stage}\.(\d+)\.") for stage in stages],
        "num_heads": _heads(embed_dims[-1]),
        "mlp_ratios": [mlp_ratio(*pair) for pair in zip(hidden, embed_dims, strict=True)],
        "multi_scale": "stage1_output_decode.weight" in state,
    }
    return Architecture(CONV_VIT, sizes)


def convnet(state: Mapping[str, Tensor]) -> Architecture:
    """A plain ResNet or a ConvNeXt (V1, V2); UserError for a ResNet with another stem."""
    if "stem.0.weight" in state:
        return _convnext(state)
    if "conv1.weight" not in state:
        raise UserError("only ResNets with one 7x7 stem convolution can be told from their weights")
    name = "resnet50" if "layer1.0.conv3.weight" in state else "resnet18"
    stages = range(1, 5)
    options = {
        "in_chans": state["conv1.weight"].shape[1],
        "layers": [_count(state, rf"layer{stage}\.(\d+)\.") for stage in stages],
        "channels": [len(state[f"layer{stage}.0.conv1.weight"]) for stage in stages],
    }
    return Architecture(name, options)


def _convnext(state: Mapping[str, Tensor]) -> Architecture:
    stages = range(_count(state, r"stages\.(\d+)\."))
    name = "convnextv2_tiny" if "stages.0.blocks.0.mlp.grn.weight" in state else "convnext_tiny"
    options = {
        "in_chans": state["stem.0.weight"].shape[1],
        "depths": [_count(state, rf"stages\.{stage}\.blocks\.(\d+)\.") for stage in stages],
        "dims": [len(state[f"stages.{stage}.blocks.0.norm.weight"]) for stage in stages],
    }
    return Architecture(name, options)
