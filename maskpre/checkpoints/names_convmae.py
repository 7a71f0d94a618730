"""ConvMAE's checkpoint names (github.com/Alpha-VL/ConvMAE): MAE's, round an encoder of its own."""

from collections.abc import Mapping

from torch import Tensor

from maskpre.checkpoints import names_mae


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors, or their gradients, under MaskedModel's names.

    There is no class token: the decoder's positions are those of the cells already.
    """
    return {names_mae.NAMES.model_name(name): value for name, value in state.items()}
