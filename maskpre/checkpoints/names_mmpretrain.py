"""Names in mmpretrain's MAE checkpoints (ColorMAE; github.com/carlosh93/ColorMAE) and this package's."""

import re
from collections.abc import Mapping

from torch import Tensor

from maskpre.checkpoints import names_mae

# mmpretrain's name, as a pattern: MAE's official name for the same tensor.
TO_MAE = {
    r"backbone\.(cls_token|pos_embed)": r"\1",
    r"backbone\.patch_embed\.projection\.(.+)": r"patch_embed.proj.\1",
    r"backbone\.layers\.(\d+)\.(.+)": r"blocks.\1.\2",
    r"backbone\.ln1\.(.+)": r"norm.\1",
    r"backbone\.ln2\.(.+)": r"fc_norm.\1",
    r"neck\.(mask_token|decoder_pos_embed)": r"\1",
    r"neck\.decoder_(embed|pred|blocks)\.(.+)": r"decoder_\1.\2",
    r"neck\.ln1\.(.+)": r"decoder_norm.\1",
    r"head\.fc\.(.+)": r"head.\1",
}
# The same for the parts of a block, in encoder and decoder.
BLOCK_PARTS = {
    r"\.ln(1|2)\.": r".norm\1.",
    r"\.ffn\.layers\.0\.0\.": ".mlp.fc1.",
    r"\.ffn\.layers\.1\.": ".mlp.fc2.",
}


def mae_name(name: str) -> str:
    """MAE's name of an mmpretrain tensor; ValueError if it has none."""
    for pattern, replacement in TO_MAE.items():
        if hit := re.fullmatch(pattern, name):
            renamed = hit.expand(replacement)
            break
    else:
        raise ValueError(f"{name!r} is no name of an mmpretrain MAE checkpoint")
    if "blocks." in renamed:
        for pattern, replacement in BLOCK_PARTS.items():
            renamed = re.sub(pattern, replacement, renamed)
    return renamed


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The data preprocessor's mean and std are no weights.
    return {
        mae_name(name): value for name, value in state.items() if not name.startswith("data_preprocessor.")
    }


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors, or their gradients, under MaskedModel's names."""
    return names_mae.pretraining_keys(_weights(state))


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder (and head, if any) under timm's names."""
    return names_mae.encoder_keys(_weights(state))
