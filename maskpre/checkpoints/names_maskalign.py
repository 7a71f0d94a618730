"""MaskAlign's checkpoint names (github.com/OpenDriveLab/maskalign) and this package's.

The student has MAE's names; the frozen teacher, stored with it, is left out.
"""

from collections.abc import Mapping

from torch import Tensor

# Official name of a part of the alignment: the name MaskedModel has for it.
ALIGNMENT = {"distill_heads": "predictors.main.heads", "distill_weights": "predictors.main.mixing"}
TEACHERS = ("clip_model.", "dino_model.")


def model_name(official: str) -> str:
    """MaskedModel's name of an official tensor."""
    part, dot, rest = official.partition(".")
    return f"{ALIGNMENT[part]}{dot}{rest}" if part in ALIGNMENT else f"encoder.{official}"


def official_name(name: str) -> str:
    """The official name of a MaskedModel tensor; ValueError if MaskAlign has nothing like it."""
    for part, ours in ALIGNMENT.items():
        if name == ours or name.startswith(f"{ours}."):
            return part + name.removeprefix(ours)
    if not name.startswith("encoder."):
        raise ValueError(f"{name!r} has no name in MaskAlign's official checkpoints")
    return name.removeprefix("encoder.")


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official checkpoint's tensors, or their gradients, under MaskedModel's names."""
    return {model_name(name): value for name, value in state.items() if not name.startswith(TEACHERS)}


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The student under timm's names."""
    return {name: value for name, value in state.items() if not name.startswith((*TEACHERS, *ALIGNMENT))}
