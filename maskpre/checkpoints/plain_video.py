"""The forward pass of an exported video encoder in plain torch.

An export's folder holds this file beside config.json and model.safetensors, and it needs nothing else:

    encoder = load(FOLDER)
    tokens = encoder(clips)

Clips are (b, c, frames, height, width), normalised as `mean` and `std` in config.json say, tokens (b, n, d);
of a classifier, scores (b, classes) come instead.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv3d, gelu, layer_norm, linear, normalize, scaled_dot_product_attention

NORM_EPS = 1e-6
LARGEST_SCALE = 4.6052


def positions(num: int, width: int) -> Tensor:
    """Sines in even columns, cosines in odd ones, of the index of a token over growing periods."""
    table = torch.zeros(num, width, dtype=torch.float64)
    for column in range(width):
        angles = torch.arange(num, dtype=torch.float64) / 10000 ** (2 * (column // 2) / width)
        table[:, column] = angles.cos() if column % 2 else angles.sin()
    return table.float()


def attention(x: Tensor, weights: Mapping[str, Tensor], num_heads: int) -> Tensor:
    """Multi-head self-attention; with `logit_scale`, of cosines."""
    batch, num, width = x.shape
    qkv = linear(x, weights["qkv.weight"], weights.get("qkv.bias"))
    q, k, v = qkv.view(batch, num, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    scale = 1 / math.sqrt(q.shape[-1])
    if "logit_scale" in weights:
        factor = weights["logit_scale"].clamp(max=LARGEST_SCALE).exp()
        q, k, scale = normalize(q, dim=-1) * factor, normalize(k, dim=-1), 1.0
    mixed = scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).reshape(batch, num, width)
    return linear(mixed, weights["proj.weight"], weights["proj.bias"])


def below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def norm(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Layer norm."""
    return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], NORM_EPS)


def block(x: Tensor, weights: Mapping[str, Tensor], num_heads: int) -> Tensor:
    """Attention and MLP, each behind a norm and added, scaled per channel if there are scales."""
    mixed = attention(norm(x, weights, "norm1"), below(weights, "attn."), num_heads)
    x = x + mixed * weights.get("ls1.gamma", 1.0)
    hidden = gelu(linear(norm(x, weights, "norm2"), weights["mlp.fc1.weight"], weights["mlp.fc1.bias"]))
    out = linear(hidden, weights["mlp.fc2.weight"], weights["mlp.fc2.bias"])
    return x + out * weights.get("ls2.gamma", 1.0)


def encode(clips: Tensor, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """Tokens (b, n, d) in the order (frame pair, row, column), or a classifier's scores."""
    kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    x = conv3d(clips, kernel, bias, stride=kernel.shape[2:]).flatten(2).transpose(1, 2)
    if config["position"] == "sincos":
        x = x + positions(x.shape[1], x.shape[2]).to(x)
    elif config["position"] == "learned":
        x = x + weights["pos_embed"]
    for number in range(config["depth"]):
        x = block(x, below(weights, f"blocks.{number}."), config["num_heads"])
    if "head.weight" in weights:
        return linear(norm(x.mean(dim=1), weights, "fc_norm"), weights["head.weight"], weights["head.bias"])
    return norm(x, weights, "norm")


def load(folder: str | Path, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    """The encoder or classifier of an export's folder, as a function of clips."""
    config = json.loads((Path(folder) / "config.json").read_text())["model_args"]
    stored = load_file(Path(folder) / "model.safetensors")
    weights = {name: value.to(dtype) for name, value in stored.items()}
    return lambda clips: encode(clips, weights, config)
