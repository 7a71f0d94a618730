"""Which layers a sparse convolutional network may have, and what each reads of a feature map."""

import operator
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

import torch
from timm.layers import activations
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.drop import DropPath
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm import LayerNorm, LayerNorm2d, LayerNorm2dFp32, LayerNormFp32
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn


class Kind(Enum):
    """What a layer's output at one position depends on.

    WINDOW: positions around it (convolutions, pools). POINT: itself alone. BATCH: the statistics of all
    visible positions of the batch. SAMPLE: those of its own sample. DROP_PATH: a random factor of its sample.
    SQUEEZE: one value per channel of its sample (a global average).
    JOIN: the same position of several maps. SCALE: itself, times one value per channel.
    TURN: itself, channels moved. VALUE: no feature map at all (parameters and what is made of them).
    """

    WINDOW = auto()
    POINT = auto()
    BATCH = auto()
    SAMPLE = auto()
    DROP_PATH = auto()
    SQUEEZE = auto()
    JOIN = auto()
    SCALE = auto()
    TURN = auto()
    VALUE = auto()


# Of these, zero in gives zero out: hidden positions that are empty stay so.
KEEP_ZERO: tuple[type[nn.Module], ...] = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Tanh,
    nn.Softsign,
    activations.GELU,
    activations.GELUTanh,
    activations.QuickGELU,
    activations.Swish,
    activations.Mish,
    activations.HardSwish,
    activations.HardMish,
    activations.PReLU,
    activations.Tanh,
)
FILL_ZERO: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.LayerNorm,
    LayerNorm,
    LayerNorm2d,
    LayerNormFp32,
    LayerNorm2dFp32,
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Softplus,
    activations.Sigmoid,
    activations.HardSigmoid,
)
POOLS: tuple[type[nn.Module], ...] = (nn.MaxPool2d, nn.AvgPool2d, MaxPool2dSame, AvgPool2dSame)
CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv2d, Conv2dSame)

MODULES: Mapping[type[nn.Module], Kind] = {
    **dict.fromkeys(KEEP_ZERO, Kind.POINT),
    **dict.fromkeys(FILL_ZERO, Kind.POINT),
    **dict.fromkeys(CONVOLUTIONS, Kind.WINDOW),
    **dict.fromkeys(POOLS, Kind.WINDOW),
    nn.BatchNorm2d: Kind.BATCH,
    nn.SyncBatchNorm: Kind.BATCH,
    BatchNormAct2d: Kind.BATCH,
    nn.InstanceNorm2d: Kind.SAMPLE,
    GlobalResponseNorm: Kind.SAMPLE,
    DropPath: Kind.DROP_PATH,
    nn.AdaptiveAvgPool2d: Kind.SQUEEZE,
}

FUNCTIONS: Mapping[Callable[..., Any] | str, Kind] = {
    operator.add: Kind.JOIN,
    operator.iadd: Kind.JOIN,
    torch.add: Kind.JOIN,
    torch.cat: Kind.JOIN,
    "add": Kind.JOIN,
    "add_": Kind.JOIN,
    operator.mul: Kind.SCALE,
    operator.imul: Kind.SCALE,
    torch.mul: Kind.SCALE,
    "mul": Kind.SCALE,
    "mul_": Kind.SCALE,
    "permute": Kind.TURN,
    "mean": Kind.SQUEEZE,
}

# The two turns there are: channels to the end, and back.
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a convolution or pool reads one position only."""
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "valid", "same")


def keeps_zero(layer: nn.Module) -> bool:
    """Whether the layer makes zero of zero."""
    if isinstance(layer, nn.Conv2d):
        return layer.bias is None
    return type(layer) in KEEP_ZERO
