"""Multi-layer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def gelu_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers between these widths with GELU between them; torch's default initialisation."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.GELU()]
    return nn.Sequential(*layers[:-1])
