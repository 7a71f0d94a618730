"""Vision transformers over tubelets."""

from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from maskpre.encoders.base import Hidden
from maskpre.encoders.patches import TubeletEmbed
from maskpre.encoders.qkv import QkvBias, Scores, adapt_attention
from maskpre.encoders.vit import ViT
from maskpre.ops.positions import sincos_flat

Position = Literal["sincos", "learned", "none"]


class VideoViT(ViT):
    """VideoMAE's encoder (Tong et al., NeurIPS 2022): a plain ViT on tubelets, without class token.

    Reads clips (b, c, num_frames, img_size, img_size) in tubelets of `tubelet_size` frames and `patch_size`
    pixels, in the order (frame, row, column). `position` "sincos" is the fixed table over this flat order,
    which no checkpoint holds; "learned" is trained. `qkv_bias` "no_key" is VideoMAE's; `scores` "cosine" is a
    switch of VideoMAE V2 (Wang et al., CVPR 2023). `init_values` None means no LayerScale. `hidden` and
    `drop_path_rate` as in `ViT`. Initialised as published: the tubelet convolution keeps torch's weights.

    Raises ValueError if sizes don't fit.
    """

    def __init__(
        self,
        *,
        img_size: int,
        num_frames: int,
        in_chans: int = 3,
        patch_size: int = 16,
        tubelet_size: int = 2,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: QkvBias = "no_key",
        scores: Scores = "dot",
        init_values: float | None = None,
        drop_path_rate: float = 0.0,
        hidden: Hidden = "drop",
        position: Position = "sincos",
    ) -> None:
        if num_frames % tubelet_size:
            raise ValueError(f"num_frames ({num_frames}) must be a multiple of tubelet_size ({tubelet_size})")
        super().__init__(
            name="vit_base_patch16_224",
            img_size=img_size,
            in_chans=in_chans,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            class_token=False,
            reg_tokens=0,
            init_values=init_values,
            drop_path_rate=drop_path_rate,
            hidden=hidden,
            position="none",
            init="timm",
        )
        self.patch_embed = TubeletEmbed(
            size=(num_frames, img_size, img_size),
            stride=(tubelet_size, patch_size, patch_size),
            in_chans=in_chans,
            embed_dim=embed_dim,
        )
        self.spec = replace(self.spec, grid=self.patch_embed.grid, out_grid=self.patch_embed.grid)
        adapt_attention(self.blocks, qkv_bias=qkv_bias, scores=scores)
        self._init_mae()
        if self.mask_token is not None:
            nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self._place(position)

    def _place(self, position: Position) -> None:
        """Make the table of positions, if any."""
        num, width = self.spec.grid.num_cells, self.spec.embed_dim
        if position == "sincos":
            del self.pos_embed
            self.register_buffer("pos_embed", sincos_flat(num, width)[None], persistent=False)
        elif position == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, num, width))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        elif position != "none":
            raise ValueError(f"position must be 'sincos', 'learned' or 'none', got {position!r}")
