"""Names of DINOv2's files with register tokens (github.com/facebookresearch/dinov2) and timm's.

timm keeps the class token's position in the token itself.
"""

from collections.abc import Mapping

from torch import Tensor

# Stands for hidden patches in training only.
UNUSED = ("mask_token",)


def encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network under timm's names."""
    renamed = {name: value for name, value in state.items() if name not in UNUSED}
    positions = renamed.pop("pos_embed")
    renamed["reg_token"] = renamed.pop("register_tokens")
    renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
    renamed["pos_embed"] = positions[:, 1:]
    return renamed
