"""Checkpoint names of SIGMA (github.com/QUVA-Lab/SIGMA) and this package's.

VideoMAE's names, and those of what it adds; a memory stands behind the decoder's output.

| official                 | MaskedModel                                |
| ------------------------ | ------------------------------------------ |
| prototypes               | targets.main.prototypes                    |
| head.{0,2,4,6}.NAME      | targets.main.projection.{0,2,4,6}.NAME     |
| memory                   | predictors.main.memory                     |
| memory_pred_head.N.NAME  | predictors.main.head.N.NAME                |
| the decoder, with memory | predictors.main.predictor instead of .main |
"""

from collections.abc import Mapping

from torch import Tensor

from maskpre.checkpoints import names_videomae

ADDED = {
    "prototypes": "targets.main.prototypes",
    "head.": "targets.main.projection.",
    "memory_pred_head.": "predictors.main.head.",
    "memory": "predictors.main.memory",
}
PREDICTOR, INNER = "predictors.main.", "predictors.main.predictor."


def _part(name: str, parts: Mapping[str, str]) -> str | None:
    """Which of the parts a name belongs to: their names end in a dot unless they are tensors."""
    return next((part for part in parts if name == part or (part[-1] == "." and name.startswith(part))), None)


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official pre-training checkpoint's tensors, or their gradients, under MaskedModel's names."""
    bare = names_videomae.unwrapped(state)
    own = {name: part for name in bare if (part := _part(name, ADDED)) is not None}
    shared = names_videomae.pretraining_keys({name: bare[name] for name in bare.keys() - own.keys()})
    if "memory" in bare:
        shared = {name.replace(PREDICTOR, INNER, 1): value for name, value in shared.items()}
    return {**shared, **{ADDED[part] + name.removeprefix(part): bare[name] for name, part in own.items()}}


def official_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A MaskedModel's tensors, or their gradients, under the official names: inverse of `pretraining_keys`.

    Raises ValueError for a tensor that SIGMA has nothing like.
    """
    parts = {ours: official for official, ours in ADDED.items()}
    own = {name: part for name in state if (part := _part(name, parts)) is not None}
    rest = {name.replace(INNER, PREDICTOR, 1): value for name, value in state.items() if name not in own}
    added = {parts[part] + name.removeprefix(part): state[name] for name, part in own.items()}
    return {**names_videomae.official_keys(rest), **added}


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder under timm's names."""
    bare = names_videomae.unwrapped(state)
    return names_videomae.encoder_keys({n: v for n, v in bare.items() if _part(n, ADDED) is None})
