"""SparK's checkpoint names (github.com/keyu-tian/SparK) and this package's.

| official                                   | MaskedModel                                 |
| ------------------------------------------ | ------------------------------------------- |
| sparse_encoder.sp_cnn.NAME                 | encoder.NAME (ConvNeXt: see below)           |
| densify_norms.i.*, densify_projs.i.*       | predictors.main.densify.i.norm.*, .proj.*   |
| mask_tokens.i                              | predictors.main.densify.i.mask_token        |
| dense_decoder.dec.i.up_sample.*            | predictors.main.blocks.i.up.*               |
| dense_decoder.dec.i.conv.{0,1,3,4}.*       | predictors.main.blocks.i.{conv1,bn1,conv2,bn2}.* |
| dense_decoder.proj.*                       | predictors.main.proj.*                      |
| imn_m, imn_s, norm_black, config: unused, dropped                                        |

ResNets have timm's names. ConvNeXts have their authors', which in timm are:

| official                                | timm                                    |
| --------------------------------------- | --------------------------------------- |
| downsample_layers.0.{0,1}.*             | stem.{0,1}.*                            |
| downsample_layers.i.{0,1}.*             | stages.i.downsample.{0,1}.*             |
| stages.i.j.dwconv.*                     | stages.i.blocks.j.conv_dw.*             |
| stages.i.j.pwconv{1,2}.*                | stages.i.blocks.j.mlp.fc{1,2}.*         |
| stages.i.j.grn.{gamma,beta}             | stages.i.blocks.j.mlp.grn.{weight,bias} |
| stages.i.j.{norm.*, gamma}              | stages.i.blocks.j.{norm.*, gamma}       |
| norm.*, head.*                          | head.norm.*, head.fc.*                  |
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

UNUSED = ("imn_m", "imn_s", "norm_black", "config")
ENCODER = "sparse_encoder.sp_cnn."

_PREDICTOR = (
    (r"densify_norms\.(\d+)\.", r"predictors.main.densify.\1.norm."),
    (r"densify_projs\.(\d+)\.", r"predictors.main.densify.\1.proj."),
    (r"mask_tokens\.(\d+)$", r"predictors.main.densify.\1.mask_token"),
    (r"dense_decoder\.dec\.(\d+)\.up_sample\.", r"predictors.main.blocks.\1.up."),
    (r"dense_decoder\.dec\.(\d+)\.conv\.0\.", r"predictors.main.blocks.\1.conv1."),
    (r"dense_decoder\.dec\.(\d+)\.conv\.1\.", r"predictors.main.blocks.\1.bn1."),
    (r"dense_decoder\.dec\.(\d+)\.conv\.3\.", r"predictors.main.blocks.\1.conv2."),
    (r"dense_decoder\.dec\.(\d+)\.conv\.4\.", r"predictors.main.blocks.\1.bn2."),
    (r"dense_decoder\.proj\.", r"predictors.main.proj."),
)
_CONVNEXT = (
    (r"downsample_layers\.0\.", r"stem."),
    (r"downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"stages\.(\d+)\.(\d+)\.dwconv\.", r"stages.\1.blocks.\2.conv_dw."),
    (r"stages\.(\d+)\.(\d+)\.pwconv(\d)\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (r"stages\.(\d+)\.(\d+)\.grn\.gamma$", r"stages.\1.blocks.\2.mlp.grn.weight"),
    (r"stages\.(\d+)\.(\d+)\.grn\.beta$", r"stages.\1.blocks.\2.mlp.grn.bias"),
    (r"stages\.(\d+)\.(\d+)\.(norm\.|gamma$)", r"stages.\1.blocks.\2.\3"),
    (r"norm\.", r"head.norm."),
    (r"head\.(?!norm\.|fc\.)", r"head.fc."),
)


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    """The name by the first rule that fits its beginning, or None."""
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", replacement, name)
    return None


def timm_name(name: str) -> str:
    """An encoder's name in timm."""
    return _rename(name, _CONVNEXT) or name


def model_names(names: Iterable[str]) -> dict[str, str]:
    """MaskedModel's name for each name of a checkpoint that is used.

    The names are those of a pre-training checkpoint, or of one with the encoder alone. Raises ValueError
    for a name of neither kind.
    """
    names = list(names)
    alone = not any(name.startswith((ENCODER, "dense_decoder.")) for name in names)
    renamed = {}
    for name in names:
        if name in UNUSED:
            continue
        if name.startswith(ENCODER) or alone:
            renamed[name] = f"encoder.{timm_name(name.removeprefix(ENCODER))}"
            continue
        ours = _rename(name, _PREDICTOR)
        if ours is None:
            raise ValueError(f"{name!r} is no name of a SparK pre-training checkpoint")
        renamed[name] = ours
    return renamed


def pretraining_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under MaskedModel's names; see `model_names`."""
    # GRN's scale and shift are vectors in timm.
    return {
        ours: state[name].flatten() if ".mlp.grn." in ours else state[name]
        for name, ours in model_names(state).items()
    }


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors, and a classifier's, under timm's names."""
    return {
        name.removeprefix("encoder."): value
        for name, value in pretraining_keys(state).items()
        if name.startswith("encoder.")
    }
