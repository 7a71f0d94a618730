"""SimMIM's initialisations (Xie et al. 2022), as the authors' code draws them."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

STD = 0.02


def init_simmim_swin(module: nn.Module, *, tokens: Iterable[Tensor]) -> None:
    """Linear weights, relative-position tables and `tokens` normal with std 0.02, biases 0, layer norms 1 and
    0; the patch convolution keeps torch's default.

    The official cut-offs lie at +-2 absolute, 100 standard deviations off: a plain normal.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=STD)
        if isinstance(part, nn.Linear | nn.LayerNorm):
            _reset(part)
    for name, parameter in module.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(parameter, std=STD)
    for token in tokens:
        nn.init.normal_(token, std=STD)


def init_simmim_vit(module: nn.Module, *, blocks: Iterable[nn.Module], tokens: Iterable[Tensor]) -> None:
    """Linear and convolution weights and `tokens` normal with std 0.02, cut off at +-1 std (which leaves a
    std of about 0.0108); biases and relative-position tables 0, layer norms 1 and 0.

    The projections that end a residual branch of `blocks`[i] (i from 0) are divided by sqrt(2 * (i + 1)).
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            _truncated(part.weight)
        if isinstance(part, nn.Linear | nn.Conv2d | nn.LayerNorm):
            _reset(part)
    for name, parameter in module.named_parameters():
        if name.endswith(("relative_position_bias_table", "q_bias", "v_bias")):
            nn.init.zeros_(parameter)
    for token in tokens:
        _truncated(token)
    with torch.no_grad():
        for index, block in enumerate(blocks):
            for last in ("attn.proj", "mlp.fc2"):
                block.get_parameter(f"{last}.weight").div_(math.sqrt(2 * (index + 1)))


def _truncated(weight: Tensor) -> None:
    nn.init.trunc_normal_(weight, std=STD, a=-STD, b=STD)


def _reset(part: nn.Linear | nn.Conv2d | nn.LayerNorm) -> None:
    """Biases 0, scales of layer norms 1."""
    if isinstance(part, nn.LayerNorm):
        nn.init.ones_(part.weight)
    if part.bias is not None:
        nn.init.zeros_(part.bias)
