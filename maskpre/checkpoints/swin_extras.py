"""What the official Swin can have and timm's cannot: absolute positions, and patches without a norm."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn


class PositionedSwin(SwinTransformer):
    """timm's Swin with one learnt vector per patch, added behind the patch embedding. It takes over `net`."""

    def __init__(self, net: SwinTransformer) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(net.__dict__)
        embed = cast(PatchEmbed, net.patch_embed)
        places = torch.empty(1, embed.num_patches, embed.proj.out_channels)
        self.absolute_pos_embed = nn.Parameter(nn.init.trunc_normal_(places, std=0.02))

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w d"]:
        """Patches, positions, stages, norm."""
        tokens = self.patch_embed(x)
        tokens = tokens + self.absolute_pos_embed.unflatten(1, tokens.shape[1:3])
        return self.norm(self.layers(tokens))


@dataclass(frozen=True)
class SwinExtras:
    """How a Swin differs from what timm can build."""

    patch_norm: bool = True
    positions: bool = False

    def apply(self, net: nn.Module) -> SwinTransformer:
        """The network, which must be a Swin, with these differences."""
        assert isinstance(net, SwinTransformer)
        if not self.patch_norm:
            cast(PatchEmbed, net.patch_embed).norm = nn.Identity()
        return PositionedSwin(net) if self.positions else net


PLAIN_SWIN = SwinExtras()
