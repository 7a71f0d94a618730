"""MAE's transformer decoder."""

from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import embedding

from maskpre.encoders.base import EncoderSpec
from maskpre.encoders.blocks import ALL, Scales, run_block, run_blocks
from maskpre.encoders.create import check_heads
from maskpre.encoders.init import init_mae
from maskpre.encoders.plain import PlainBlock
from maskpre.ops.dense import norm_linear
from maskpre.ops.positions import sincos_2d
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Grid, Located, MaskPlan, Step, gather_tokens


class MAEDecoder(Predictor):
    """Transformer over encoded tokens and mask tokens (MAE, He et al. 2022, section 3).

    Tokens are decoded in the order [prefix, visible, hidden] instead of raster order: attention doesn't mind,
    no unshuffling copy is made, and what the loss reads is one contiguous piece. Only that piece leaves the
    last block and is projected.
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
        check_heads(num_heads, embed_dim)
        self.grid, self.prefix = encoder.out_grid, encoder.num_prefix_tokens
        self.embed = nn.Linear(encoder.embed_dim, embed_dim)
        # An encoder that replaces hidden cells leaves none to fill in.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if encoder.hidden == "drop" else None
        self.pos_embed = nn.Parameter(_table(self.grid, embed_dim, position), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)
        )
        self.norm = LayerNorm(embed_dim)
        self.pred = nn.Linear(embed_dim, out_dim)
        self._recompute = False
        init_mae(self)
        if self.mask_token is not None:
            nn.init.normal_(self.mask_token, std=0.02)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def _seen(self, encoded: Encoded) -> Float[Tensor, "b n d"]:
        """Prefix and encoded cells in the decoder's width, with positions."""
        tokens = encoded.tokens if encoded.prefix is None else torch.cat([encoded.prefix, encoded.tokens], 1)
        tokens, table = self.embed(tokens), self.pos_embed[0]
        positions = table if encoded.ids is None else table[encoded.ids]
        # The prefix has no place in the grid: its position is zero in the official table.
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix :] + positions], dim=1)

    def _fresh(self) -> Float[Tensor, "l d"]:
        """Mask tokens with the positions of all cells."""
        assert self.mask_token is not None
        return self.mask_token[0] + self.pos_embed[0]

    def _run_first(
        self, block: nn.Module, x: Float[Tensor, "b n d"], scales: Scales, *, hide: Tensor, read: slice
    ) -> Float[Tensor, "b q d"]:
        """`run_block`, knowing that the cells `hide`, last in the sequence, are mask tokens.

        Those differ by position alone, so their queries, keys and values are the same for all samples.
        """
        plain = PlainBlock.of(block)
        if plain is None:
            return run_block(block, x, scales, read=read)
        seen, fresh = x[:, : -hide.shape[1]], self._fresh()
        qkv = plain.project(torch.cat([seen.flatten(0, 1), fresh]))
        of_seen, of_fresh = qkv.split([len(qkv) - len(fresh), len(fresh)])
        qkv = torch.cat([of_seen.unflatten(0, seen.shape[:2]), embedding(hide, of_fresh)], dim=1)
        return plain.finish(x, qkv, read)

    def _decode(self, x: Float[Tensor, "b n d"], hide: Tensor | None, read: slice) -> Float[Tensor, "b q d"]:
        """The tokens `read` after all blocks."""
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            wanted = read if i == last else ALL
            run = partial(run_block, read=wanted)
            if i == 0 and hide is not None:
                run = partial(self._run_first, hide=hide, read=wanted)
            x = run_blocks([block], x, [None], recompute=self._recompute, run=run)
        return x

    def forward(self, encoded: Encoded, plan: MaskPlan, step: Step) -> Located:
        """Decode every cell, project those of the region."""
        seen = self._seen(encoded)
        if encoded.ids is None:
            ids = plan.ids(self.region, self.grid)
            x = self._decode(seen, None, slice(self.prefix, None))
            x = x if ids is None else gather_tokens(x, ids)
        else:
            ids, read = self._region(encoded.ids, plan)
            x = self._decode(torch.cat([seen, self._fresh()[plan.hide]], dim=1), plan.hide, read)
        tokens = norm_linear(x, self.norm, self.pred)
        return Located(tokens, self.grid, ids, None if ids is None else self.region)

    def _region(self, seen: Tensor, plan: MaskPlan) -> tuple[Tensor, slice]:
        """The ids of the region's cells and where they lie in the sequence."""
        first_hidden = self.prefix + seen.shape[1]
        if self.region == "masked":
            return plan.hide, slice(first_hidden, None)
        if self.region == "visible":
            return seen, slice(self.prefix, first_hidden)
        return torch.cat([seen, plan.hide], dim=1), slice(self.prefix, None)


def _table(grid: Grid, width: int, position: str) -> Float[Tensor, "1 l d"]:
    rows, cols = grid.shape
    return sincos_2d((rows, cols), width, first="row" if position == "sincos_row_first" else "column")[None]
