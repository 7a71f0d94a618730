"""The layouts of official checkpoints, told apart by their names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from maskpre.checkpoints import infer, names_convmae, names_mae, names_mmpretrain, names_simmim
from maskpre.checkpoints.architecture import Architecture

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How one code base names its tensors: `marker` is a pattern that fits a name no other layout has.

    `model_keys` gives MaskedModel's names, `encoder_keys` timm's, and `architecture` reads timm's names.
    """

    name: str
    marker: str
    model_keys: Callable[[State], dict[str, Tensor]]
    encoder_keys: Callable[[State], dict[str, Tensor]]
    infer: Callable[[State], Architecture]

    def architecture(self, state: State) -> Architecture:
        """The encoder's, told from a checkpoint in this layout."""
        bare = {name.removeprefix("encoder."): value for name, value in state.items()}
        return self.infer({**bare, **self.encoder_keys(state)})


LAYOUTS = (
    Layout(
        "ConvMAE",
        r"blocks3\.0\.attn\.qkv\.weight",
        names_convmae.pretraining_keys,
        names_mae.encoder_keys,
        infer.conv_vit,
    ),
    Layout(
        "mmpretrain MAE",
        r"backbone\.layers\.0\.ln1\.weight",
        names_mmpretrain.pretraining_keys,
        names_mmpretrain.encoder_keys,
        infer.vit,
    ),
    Layout(
        "SimMIM Swin",
        r"(encoder\.)?layers\.0\.blocks\.0\.attn\.relative_position_bias_table",
        partial(names_simmim.pretraining_keys, kind="swin"),
        partial(names_simmim.encoder_keys, kind="swin"),
        infer.swin,
    ),
    Layout(
        "SimMIM ViT",
        r"(encoder\.)?blocks\.0\.(attn\.q_bias|gamma_1)",
        partial(names_simmim.pretraining_keys, kind="vit"),
        partial(names_simmim.encoder_keys, kind="vit"),
        infer.beit,
    ),
    Layout(
        "MAE",
        r"blocks\.0\.attn\.qkv\.weight",
        names_mae.pretraining_keys,
        names_mae.encoder_keys,
        infer.vit,
    ),
)


def recognise(state: State) -> Layout | None:
    """The first layout whose marker a name fits, or None."""
    for layout in LAYOUTS:
        if any(re.fullmatch(layout.marker, name) for name in state):
            return layout
    return None
