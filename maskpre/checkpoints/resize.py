"""Position tables for another grid than the one they were trained on."""

import re
from collections.abc import Mapping
from math import isqrt

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import RectBivariateSpline
from torch import Tensor
from torch.nn.functional import interpolate

TABLE = "relative_position_bias_table"
SHARED_TABLE = f"rel_pos_bias.{TABLE}"
POSITIONS = ("pos_embed", "absolute_pos_embed")
CLASS_ROWS = 3


def resize_positions(
    table: Float[Tensor, "1 n d"],
    *,
    source: tuple[int, int],
    target: tuple[int, int],
    num_prefix_tokens: int,
    antialias: bool = False,
) -> Float[Tensor, "1 m d"]:
    """Absolute positions for a grid of `target` (rows, columns) from one of `source`; prefix rows stay.

    Bicubic, without anti-aliasing as MAE's fine-tuning (He et al. 2022) does, or with it as DINOv2 with
    registers (Darcet et al. 2024).
    """
    if source == target:
        return table
    prefix, cells = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    planes = cells.unflatten(1, source).permute(0, 3, 1, 2)
    resized = interpolate(planes, size=target, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2)], dim=1)


def stretched_offsets(source: int, target: int) -> list[float]:
    """Where the `source` offsets of a table (odd) lie, in cells of a table with `target` offsets.

    0, then steps of 1, q, q^2, ... to either side: a geometric progression whose ratio is found by bisection
    in [1.01, 1.5] so that the outermost offset falls on the target's, if it can (BEiT; Bao et al. 2022).
    """
    low, high, ratio = 1.01, 1.5, 1.255
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (source // 2)) / (1 - ratio) > target // 2:
            high = ratio
        else:
            low = ratio
    side = np.cumsum(ratio ** np.arange(source // 2)).tolist()
    return [*(-offset for offset in reversed(side)), 0.0, *side]


def resize_relative_table(
    table: Float[Tensor, "n k"], *, source: tuple[int, int], target: tuple[int, int]
) -> Float[Tensor, "m k"]:
    """Relative-position biases per head (k) for windows of `target` (rows, columns) from those of `source`.

    A bicubic spline through the geometrically stretched offsets, in float32, as SimMIM's loader does; rows
    beyond the offsets (the class token's) stay. Targets outside the stretched offsets get the value at the
    edge. Raises ValueError for a window of one cell, which has no offsets to go by.
    """
    if source == target:
        return table
    if min(source) < 2:
        raise ValueError(f"relative positions of a window {source} can't be resized to a window {target}")
    old, new = (tuple(2 * side - 1 for side in window) for window in (source, target))
    places = [stretched_offsets(a, b) for a, b in zip(old, new, strict=True)]
    wanted = [np.arange(side) - side // 2 for side in new]
    degrees = [min(3, side - 1) for side in old]
    columns = [
        RectBivariateSpline(*places, column.reshape(old), kx=degrees[0], ky=degrees[1])(*wanted).ravel()
        for column in table[: old[0] * old[1]].detach().float().cpu().numpy().T
    ]
    resized = torch.from_numpy(np.stack(columns, axis=1)).to(table)
    return torch.cat([resized, table[old[0] * old[1] :]])


def square_window(num_rows: int) -> tuple[int, int]:
    """The square window that a table of `num_rows` belongs to, with or without rows for a class token.

    Raises ValueError if there is none.
    """
    for rows in (num_rows, num_rows - CLASS_ROWS):
        side = isqrt(max(rows, 0))
        if side * side == rows and side % 2:
            return (side // 2 + 1, side // 2 + 1)
    raise ValueError(f"a relative-position table of {num_rows} rows belongs to no square window")


def square_grid(num_rows: int, num_prefix_tokens: int) -> tuple[int, int]:
    """The square grid that `num_rows` absolute positions belong to; ValueError if there is none."""
    side = isqrt(max(num_rows - num_prefix_tokens, 0))
    if side * side != num_rows - num_prefix_tokens:
        raise ValueError(
            f"{num_rows} positions, {num_prefix_tokens} of them prefix, belong to no square grid"
        )
    return (side, side)


def spread_shared_table(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every block its own copy of a shared relative-position table, where `like` has one per block."""
    spread = dict(state)
    for name in [name for name in state if name.endswith(SHARED_TABLE) and name not in like]:
        table = spread.pop(name)
        own = re.compile(re.escape(name.removesuffix(SHARED_TABLE)) + rf"blocks\.\d+\.attn\.{TABLE}")
        spread.update({other: table.clone() for other in like if own.fullmatch(other)})
    return spread


def fit_positions(
    state: Mapping[str, Tensor],
    like: Mapping[str, Tensor],
    *,
    num_prefix_tokens: int,
    antialias: bool = False,
) -> dict[str, Tensor]:
    """`state` with its position tables spread over blocks and resized to the shapes they have in `like`.

    `antialias` concerns absolute positions, see `resize_positions`. Grids and windows are taken to be square.
    Raises ValueError if widths or heads differ, or tables belong to no square.
    """
    return {
        name: _fit(name, value, like[name], num_prefix_tokens, antialias) if name in like else value
        for name, value in spread_shared_table(state, like).items()
    }


def _fit(name: str, value: Tensor, like: Tensor, num_prefix_tokens: int, antialias: bool) -> Tensor:
    last = name.rpartition(".")[2]
    if value.shape == like.shape or last not in (TABLE, *POSITIONS):
        return value
    if value.shape[-1] != like.shape[-1]:
        raise ValueError(f"{name} has {value.shape[-1]} columns, the model's has {like.shape[-1]}")
    if last == TABLE:
        source, target = square_window(len(value)), square_window(len(like))
        return resize_relative_table(value, source=source, target=target)
    prefix = num_prefix_tokens if last == "pos_embed" else 0
    source, target = square_grid(value.shape[1], prefix), square_grid(like.shape[1], prefix)
    return resize_positions(
        value, source=source, target=target, num_prefix_tokens=prefix, antialias=antialias
    )
