"""SimMIM's checkpoint names (github.com/microsoft/SimMIM) and this package's.

| official                        | MaskedModel                    | timm, for fine-tuning       |
| ------------------------------- | ------------------------------ | --------------------------- |
| encoder.NAME                    | encoder.NAME                   | NAME                        |
| encoder.mask_token              | encoder.mask_token             | -                           |
| decoder.0.weight, decoder.0.bias | predictors.main.pred.weight, .bias | -                       |
| layers.i.downsample.* (Swin)    | layers.(i+1).downsample.*      | layers.(i+1).downsample.*   |
| head.* (Swin)                   | -                              | head.fc.*                   |
| head.*, fc_norm.* (ViT)         | -                              | the same                    |
| *.relative_position_index, *.attn_mask, *.relative_coords_table: computed, dropped              |
"""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Kind = Literal["swin", "vit"]

COMPUTED = ("relative_position_index", "attn_mask", "relative_coords_table")
CHANNELS = 3


def _stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith(COMPUTED)}


def _timm_name(name: str, kind: Kind) -> str:
    """An encoder's name without prefix; Swin's patch merging moves from a stage's end to the next's start."""
    if kind == "vit":
        return name
    moved = re.sub(r"^layers\.(\d+)\.downsample\.", lambda hit: f"layers.{int(hit[1]) + 1}.downsample.", name)
    return re.sub(r"^head\.", "head.fc.", moved)


def pixels_last(values: Float[Tensor, "k *rest"]) -> Float[Tensor, "k *rest"]:
    """Reorder the values of a cell from (channel, row, column), which pixel shuffle takes, to (row, column,
    channel).

    Raises ValueError if the values are no square of RGB pixels.
    """
    side = isqrt(len(values) // CHANNELS)
    if side * side * CHANNELS != len(values):
        raise ValueError(f"a SimMIM decoder gives {CHANNELS} values per pixel of a square, not {len(values)}")
    return values.unflatten(0, (CHANNELS, side * side)).transpose(0, 1).flatten(0, 1)


def pretraining_keys(state: Mapping[str, Tensor], *, kind: Kind) -> dict[str, Tensor]:
    """An official pre-training checkpoint's tensors (or their gradients) under MaskedModel's names.

    Raises ValueError for a name that belongs to neither encoder nor decoder.
    """
    renamed = {}
    for name, value in _stored(state).items():
        part, _, rest = name.partition(".")
        if part == "encoder" and not rest.startswith("fc_norm."):
            renamed[f"encoder.{_timm_name(rest, kind)}"] = value
        elif name == "decoder.0.weight":
            renamed["predictors.main.pred.weight"] = pixels_last(value.flatten(1))
        elif name == "decoder.0.bias":
            renamed["predictors.main.pred.bias"] = pixels_last(value)
        elif part != "encoder":
            raise ValueError(f"{name!r} is no name of a SimMIM pre-training checkpoint")
    return renamed


def encoder_keys(state: Mapping[str, Tensor], *, kind: Kind) -> dict[str, Tensor]:
    """A pre-training or fine-tuning checkpoint's encoder (and head, if any) under timm's names.

    The decoder and the mask token are left out.
    """
    bare = {name.removeprefix("encoder."): value for name, value in _stored(state).items()}
    return {
        _timm_name(name, kind): value
        for name, value in bare.items()
        if name != "mask_token" and not name.startswith("decoder.")
    }
