"""MAE's transformer decoder."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maskpre.encoders.base import EncoderSpec
from maskpre.encoders.blocks import run_blocks
from maskpre.encoders.init import init_mae
from maskpre.ops.positions import sincos_2d
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Grid, Located, MaskPlan, Step, gather_tokens


class MAEDecoder(Predictor):
    """Transformer over encoded tokens and mask tokens (MAE, He et al. 2022, section 3).

    Tokens are decoded in the order [prefix, visible, hidden] instead of raster order: attention doesn't mind,
    no unshuffling copy is made, and what the loss reads is one contiguous piece. Only that piece is projected.
    `position` is the fixed table: "sincos" is MAE's, "sincos_row_first" ColorMAE's.
    """

    fills_hidden: ClassVar[bool] = True

    def __init__(
        self,
        *,
        encoder: EncoderSpec,
        out_dim: int,
        region: str,
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        position: Literal["sincos", "sincos_row_first"] = "sincos",
    ) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide embed_dim ({embed_dim})")
        self.grid, self.prefix = encoder.out_grid, encoder.num_prefix_tokens
        self.embed = nn.Linear(encoder.embed_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(_table(self.grid, embed_dim, position), requires_grad=False)
        norm = _layer_norm
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        self.norm = norm(embed_dim)
        self.pred = nn.Linear(embed_dim, out_dim)
        self._recompute = False
        init_mae(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def _sequence(self, encoded: Encoded, hide: Tensor | None) -> Float[Tensor, "b n d"]:
        tokens = encoded.tokens if encoded.prefix is None else torch.cat([encoded.prefix, encoded.tokens], 1)
        table = self.pos_embed[0]
        tokens = self.embed(tokens)
        if encoded.ids is None:
            positions = table.expand(len(tokens), -1, -1)
        else:
            positions = gather_tokens(table.expand(len(tokens), -1, -1), encoded.ids)
        seen = tokens[:, self.prefix :] + positions
        # The prefix has no place in the grid: its position is zero in the official table.
        parts = [tokens[:, : self.prefix], seen]
        if hide is not None:
            parts.append(self.mask_token + table[hide])
        return torch.cat(parts, dim=1)

    def forward(self, encoded: Encoded, plan: MaskPlan, step: Step) -> Located:
        """Decode every cell, project those of the region."""
        hide = plan.hide if encoded.ids is not None else None
        x = self._sequence(encoded, hide)
        x = run_blocks(self.blocks, x, [None] * len(self.blocks), recompute=self._recompute)
        chosen, ids = self._region(x[:, self.prefix :], encoded, plan)
        return Located(self.pred(self.norm(chosen)), self.grid, ids, None if ids is None else self.region)

    def _region(self, x: Tensor, encoded: Encoded, plan: MaskPlan) -> tuple[Tensor, Tensor | None]:
        """The decoded tokens of the region and their ids."""
        if encoded.ids is None:
            ids = plan.ids(self.region, self.grid)
            return (x if ids is None else gather_tokens(x, ids)), ids
        num_visible = encoded.ids.shape[1]
        if self.region == "masked":
            return x[:, num_visible:], plan.hide
        if self.region == "visible":
            return x[:, :num_visible], encoded.ids
        return x, torch.cat([encoded.ids, plan.hide], dim=1)


def _layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)


def _table(grid: Grid, width: int, position: str) -> Float[Tensor, "1 l d"]:
    rows, cols = grid.shape
    return sincos_2d((rows, cols), width, first="row" if position == "sincos_row_first" else "column")[None]
