"""Names of DINO's training checkpoints (github.com/facebookresearch/dino): timm's behind "backbone."."""

from collections.abc import Mapping

from torch import Tensor


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone under timm's names, without the projection head."""
    bare = {name.removeprefix("module."): value for name, value in state.items()}
    return {
        name.removeprefix("backbone."): value for name, value in bare.items() if name.startswith("backbone.")
    }
