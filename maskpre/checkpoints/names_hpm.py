"""HPM's checkpoint names (github.com/Haochen-Wang409/HPM) and this package's.

MAE's names, and those of the loss predictor, which shares MAE's decoder_embed, mask_token and
decoder_pos_embed with the reconstructor. The averaged weights have the same names again.
"""

from collections.abc import Mapping

from torch import Tensor

from maskpre.checkpoints import names_mae
from maskpre.checkpoints.part_names import PartNames

LOSS_PREDICTOR = PartNames(
    "HPM",
    {
        "decoder_blocks_losspred": "predictors.losses.blocks",
        "decoder_norm_losspred": "predictors.losses.norm",
        "decoder_pred_losspred": "predictors.losses.pred",
    },
)
# Blanks a share of the visible patches where the authors' vis_mask_ratio is used.
VISIBLE_TOKEN = "vis_mask_token"
OWN_VISIBLE_TOKEN = "encoder.mask_token"
AVERAGE = "averages.ema."


def _without_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in state.items()}


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official checkpoint's tensors, or their gradients, under MaskedModel's names."""
    bare = _without_wrapper(state)
    renamed = names_mae.pretraining_keys({n: v for n, v in bare.items() if not LOSS_PREDICTOR.covers(n)})
    if VISIBLE_TOKEN in bare:
        renamed[OWN_VISIBLE_TOKEN] = renamed.pop(names_mae.NAMES.model_name(VISIBLE_TOKEN))
    losses = {LOSS_PREDICTOR.model_name(n): v for n, v in bare.items() if LOSS_PREDICTOR.covers(n)}
    return {**renamed, **losses}


def average_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged tensors of an official checkpoint under MaskedModel's names."""
    return {f"{AVERAGE}{name}": value for name, value in pretraining_keys(state).items()}


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder (and head, if any) of an official checkpoint under timm's names."""
    kept = names_mae.encoder_keys(_without_wrapper(state))
    return {n: v for n, v in kept.items() if not LOSS_PREDICTOR.covers(n) and n != VISIBLE_TOKEN}
