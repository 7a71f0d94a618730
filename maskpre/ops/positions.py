"""Fixed position tables."""

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from maskpre.nearest import multiples, nearest_number


def sincos_1d(positions: Float[Tensor, "n"], width: int) -> Float[Tensor, "n d"]:
    """Sines then cosines of positions * 10000^(-2k/width), k < width/2, in float64."""
    if width % 2:
        raise ValueError(f"a sin-cos table needs an even width per axis, got {width}")
    omega = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(shape: tuple[int, int], width: int, *, first: str = "column") -> Float[Tensor, "l d"]:
    """Table for a grid of (rows, columns); one half of the width per axis, computed in float64.

    `first` says which index the first half encodes: "column" as in facebookresearch/mae (He et al. 2022),
    "row" as in mmpretrain and ColorMAE.
    """
    if width % 4:
        nearest = nearest_number(width, multiples(4, near=width))
        raise ValueError(f"a 2-D sin-cos table needs a width divisible by 4, got {width}{nearest}")
    rows = torch.arange(shape[0]).repeat_interleave(shape[1])
    cols = torch.arange(shape[1]).repeat(shape[0])
    halves = (cols, rows) if first == "column" else (rows, cols)
    return torch.cat([sincos_1d(half, width // 2) for half in halves], dim=1).float()


def sincos_flat(num: int, width: int) -> Float[Tensor, "l d"]:
    """Table over `num` flat indices, computed in float64: sines in even columns, cosines in odd ones.

    Columns 2k and 2k + 1 have the angle index * 10000^(-2k/width) (Vaswani et al. 2017; VideoMAE).
    """
    rate = torch.arange(width).div(2, rounding_mode="floor").double() * 2 / width
    angles = torch.arange(num, dtype=torch.float64)[:, None] / 10000.0**rate
    angles[:, 0::2], angles[:, 1::2] = angles[:, 0::2].sin(), angles[:, 1::2].cos()
    return angles.float()


def relative_codes(shape: tuple[int, int]) -> Int32[Tensor, "l"]:
    """One code per cell of a grid: code[i] - code[j] + `relative_offset` numbers the displacement from cell j
    to cell i as the tables of relative positions of BEiT and Swin do.
    """
    rows, cols = (torch.arange(size, dtype=torch.int32) for size in shape)
    return (rows[:, None] * (2 * shape[1] - 1) + cols).flatten()


def relative_offset(shape: tuple[int, int]) -> int:
    """The number of no displacement; see `relative_codes`."""
    return (shape[0] - 1) * (2 * shape[1] - 1) + shape[1] - 1
