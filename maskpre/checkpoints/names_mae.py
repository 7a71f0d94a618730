"""MAE's checkpoint names (github.com/facebookresearch/mae) and this package's.

The encoder's names are timm's: MaskedModel has them behind "encoder.". The decoder's first parts are in
`NAMES`. The official decoder table starts with a zero row for the class token, which is left out here.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from maskpre.checkpoints.part_names import PartNames

NAMES = PartNames(
    "MAE",
    {
        "decoder_embed": "predictors.main.embed",
        "mask_token": "predictors.main.mask_token",
        "decoder_pos_embed": "predictors.main.pos_embed",
        "decoder_blocks": "predictors.main.blocks",
        "decoder_norm": "predictors.main.norm",
        "decoder_pred": "predictors.main.pred",
    },
)
POSITIONS = "predictors.main.pos_embed"


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official checkpoint's tensors, or their gradients, under MaskedModel's names."""
    renamed = {NAMES.model_name(name): value for name, value in state.items()}
    if POSITIONS in renamed:
        if bool(renamed[POSITIONS][:, 0].any()):
            raise ValueError("decoder_pos_embed gives the class token a position; MAE's own is zero there")
        renamed[POSITIONS] = renamed[POSITIONS][:, 1:]
    return renamed


def official_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A MaskedModel's tensors under the official names: the inverse of `pretraining_keys`."""
    official = {NAMES.official_name(name): value for name, value in state.items()}
    if "decoder_pos_embed" in official:
        table = official["decoder_pos_embed"]
        official["decoder_pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    return official


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder (and head, if any) of an official checkpoint under timm's names."""
    return {name: value for name, value in state.items() if not NAMES.covers(name)}
