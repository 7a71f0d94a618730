"""MAE's transformer decoder."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from maskpre.encoders.attend import ALL
from maskpre.encoders.base import EncoderSpec
from maskpre.encoders.blocks import Scales, residual_scales, run_block, run_blocks
from maskpre.encoders.create import check_heads
from maskpre.encoders.init import init_mae
from maskpre.encoders.plain import PlainBlock
from maskpre.ops.dense import norm_linear
from maskpre.ops.positions import sincos_2d, sincos_flat
from maskpre.predictors.base import Predictor
from maskpre.types import Encoded, Grid, Located, MaskPlan, Noise, Step, gather_tokens


@dataclass(frozen=True)
class DecoderInput(Encoded):
    """Encoded tokens in a decoder's width, with positions; `blank` is what stands at every other cell."""

    blank: Float[Tensor, "l d"] | None = None


Position = Literal["sincos", "sincos_row_first", "sincos_flat"]


class MAEDecoder(Predictor):
    """Transformer over encoded tokens and mask tokens (MAE, He et al. 2022, section 3).

    Tokens are decoded in the order [prefix, visible, hidden] instead of raster order: attention doesn't mind,
    no unshuffling copy is made, and what the loss reads is one contiguous piece. Only that piece leaves the
    last block and is projected. Where samples differ in the number of visible cells, that piece has no common
    place, and cells are decoded in raster order. A plan that says which cells to decode has mask tokens at
    those only, visible ones among them included.
    `position` is the fixed table: "sincos" is MAE's, "sincos_row_first" ColorMAE's, "sincos_flat" VideoMAE's
    over the cells' flat order. With `input_of` it
    decodes what another decoder of the same width prepared, and has no embedding, mask token and table of
    its own. Every value is the mean of `outputs_per_value` outputs of the last layer (HPM's loss predictor
    has as many as a patch has values).
    """

    fills_hidden: ClassVar[bool] = True
    takes_ragged = True

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
        position: Position = "sincos",
        input_of: str | None = None,
        outputs_per_value: int = 1,
    ) -> None:
        super().__init__(encoder=encoder, out_dim=out_dim, region=region)
        check_heads(num_heads, embed_dim)
        if outputs_per_value < 1:
            raise ValueError(f"outputs_per_value must be at least 1, got {outputs_per_value}")
        self.grid, self.prefix = encoder.out_grid, encoder.num_prefix_tokens
        self.input_dim, self.input_of = embed_dim, input_of
        self.mask_token = None
        if input_of is None:
            self.embed = nn.Linear(encoder.embed_dim, embed_dim)
            # An encoder that replaces hidden cells leaves none to fill in.
            if encoder.omits_hidden:
                self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
            table = nn.Parameter(_table(self.grid, embed_dim, position), requires_grad=False)
            self.pos_embed: Tensor = table
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)
        )
        self.norm = LayerNorm(embed_dim)
        self.pred = nn.Linear(embed_dim, out_dim * outputs_per_value)
        self._recompute = False
        self._drop_path = [0.0] * depth
        init_mae(self)
        if self.mask_token is not None:
            nn.init.normal_(self.mask_token, std=0.02)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def prepare(self, encoded: Encoded) -> DecoderInput:
        """Prefix and encoded cells in the decoder's width, with positions."""
        return self._enter(encoded)

    def _enter(self, encoded: Encoded) -> DecoderInput:
        tokens = encoded.tokens if encoded.prefix is None else torch.cat([encoded.prefix, encoded.tokens], 1)
        tokens, table = self.embed(tokens), self.pos_embed[0]
        positions = table if encoded.ids is None else table[encoded.ids]
        blank = None if self.mask_token is None else self.mask_token[0] + table
        # The prefix has no place in the grid: its position is zero in the official table.
        prefix, cells = tokens[:, : self.prefix], tokens[:, self.prefix :] + positions
        return DecoderInput(
            cells, self.grid, encoded.ids, prefix=prefix, lengths=encoded.lengths, blank=blank
        )

    def _run_first(
        self,
        block: nn.Module,
        x: Float[Tensor, "b n d"],
        scales: Scales,
        *,
        blank: Float[Tensor, "l d"],
        fill: Tensor,
        read: slice,
    ) -> Float[Tensor, "b q d"]:
        """`run_block`, knowing that the cells `fill`, last in the sequence, are blank.

        Those differ by position alone, so their queries, keys and values are the same for all samples.
        """
        plain = None if scales is not None else PlainBlock.of(block)
        if plain is None:
            return run_block(block, x, scales, read=read)
        seen = x[:, : -fill.shape[1]]
        qkv = plain.project(torch.cat([seen.flatten(0, 1), blank]))
        of_seen, of_blank = qkv.split([len(qkv) - len(blank), len(blank)])
        qkv = torch.cat([of_seen.unflatten(0, seen.shape[:2]), embedding(fill, of_blank)], dim=1)
        return plain.finish(x, qkv, read)

    def sequence(self, given: DecoderInput, fill: Tensor | None) -> Float[Tensor, "b n d"]:
        """What enters the first block: prefix, encoded cells, and the cells `fill`, which are blank."""
        assert given.prefix is not None
        x = torch.cat([given.prefix, given.tokens], dim=1)
        if fill is None:
            return x
        assert given.blank is not None
        return torch.cat([x, given.blank[fill]], dim=1)

    def _decode(
        self, given: DecoderInput, fill: Tensor | None, read: slice, noise: Noise
    ) -> Float[Tensor, "b q d"]:
        """The tokens `read` after all blocks; the cells `fill` are blank and come last."""
        x, runs = self.sequence(given, fill), [run_block] * len(self.blocks)
        if fill is not None:
            assert given.blank is not None
            runs[0] = partial(self._run_first, blank=given.blank, fill=fill)
        scales = residual_scales(noise, self._drop_path, training=self.training, stream="decoder_drop_path")
        last = len(self.blocks) - 1
        for i, (block, run) in enumerate(zip(self.blocks, runs, strict=True)):
            run_read = partial(run, read=read if i == last else ALL)
            x = run_blocks([block], x, scales[i : i + 1], recompute=self._recompute, run=run_read)
        return x

    def _values(self, x: Float[Tensor, "b q d"]) -> Float[Tensor, "b q k"]:
        """Project decoded tokens; means of outputs are taken of the weights, which are fewer."""
        if self.pred.out_features == self.out_dim:
            return norm_linear(x, self.norm, self.pred)
        weight = self.pred.weight.unflatten(0, (self.out_dim, -1)).mean(dim=1)
        return linear(self.norm(x), weight, self.pred.bias.unflatten(0, (self.out_dim, -1)).mean(dim=1))

    def forward(self, encoded: Encoded, plan: MaskPlan | None, step: Step) -> Located:
        """Decode every cell, or those the plan names, and project those of the region."""
        given = encoded if isinstance(encoded, DecoderInput) else self._enter(encoded)
        if plan is not None and given.ids is not None and given.lengths is None:
            ids, covers, read = self._region(given.ids, plan)
            x = self._decode(given, _to_fill(plan), read, step.noise)
            return Located(self._values(x), self.grid, ids, covers)
        chosen: Tensor | None = None
        lengths = None
        if plan is not None:
            given = given if given.ids is None else _fill_in(given, plan)
            chosen, lengths = plan.ids(self.region, self.grid), plan.num_ids(self.region, self.grid)
        x = self._decode(given, None, slice(self.prefix, None), step.noise)
        x = x if chosen is None else gather_tokens(x, chosen)
        region = None if chosen is None else self.region
        return Located(self._values(x), self.grid, chosen, region, lengths=lengths)

    def _region(self, seen: Tensor, plan: MaskPlan) -> tuple[Tensor, str, slice]:
        """The ids of the region's cells, the region they are exactly, and where they lie in the sequence."""
        fill, first_filled = _to_fill(plan), self.prefix + seen.shape[1]
        if self.region == "visible":
            return seen, "visible", slice(self.prefix, first_filled)
        if plan.decode is not None:
            return fill, "decode", slice(first_filled, None)
        if self.region in ("masked", "decode", "decode&masked"):
            return fill, self.region, slice(first_filled, None)
        return torch.cat([seen, fill], dim=1), self.region, slice(self.prefix, None)


def _to_fill(plan: MaskPlan) -> Tensor:
    """The cells that get a mask token."""
    return plan.hide if plan.decode is None else plan.decode


def _fill_in(given: DecoderInput, plan: MaskPlan) -> DecoderInput:
    """All cells in raster order, hidden ones blank."""
    assert given.ids is not None
    assert given.blank is not None
    cells = given.tokens.new_zeros(*plan.mask.shape, given.tokens.shape[2])
    cells = cells.scatter(1, given.ids[..., None].expand_as(given.tokens), given.tokens)
    cells = torch.where(plan.mask[..., None], given.blank.to(cells.dtype), cells)
    return replace(given, tokens=cells, ids=None, lengths=None)


def _table(grid: Grid, width: int, position: str) -> Float[Tensor, "1 l d"]:
    if position == "sincos_flat":
        return sincos_flat(grid.num_cells, width)[None]
    if len(grid.shape) != 2:
        raise ValueError(f"position {position!r} is for pictures; for clips use 'sincos_flat'")
    rows, cols = grid.shape
    return sincos_2d((rows, cols), width, first="row" if position == "sincos_row_first" else "column")[None]
