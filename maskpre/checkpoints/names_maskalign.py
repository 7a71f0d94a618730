"""MaskAlign's checkpoint names (github.com/OpenDriveLab/maskalign) and this package's.

The student has MAE's names; the frozen teacher, stored with it, is left out.
"""

from collections.abc import Mapping

from torch import Tensor

from maskpre.checkpoints.part_names import PartNames

NAMES = PartNames(
    "MaskAlign", {"distill_heads": "predictors.main.heads", "distill_weights": "predictors.main.mixing"}
)
TEACHERS = ("clip_model.", "dino_model.")


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official checkpoint's tensors, or their gradients, under MaskedModel's names."""
    return {NAMES.model_name(name): value for name, value in state.items() if not name.startswith(TEACHERS)}


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The student under timm's names."""
    student = {name: value for name, value in state.items() if not name.startswith(TEACHERS)}
    return {name: value for name, value in student.items() if not NAMES.covers(name)}
