"""Plain vision transformers from timm."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from maskpre.encoders.base import EncoderSpec, Hidden, TappedEncoder
from maskpre.encoders.blocks import can_pack, drop_path_rates, residual_scales
from maskpre.encoders.create import create_timm
from maskpre.encoders.init import init_mae
from maskpre.encoders.patches import embed_patches
from maskpre.encoders.ragged import RaggedTokens
from maskpre.encoders.taps import gives_class_attention, run_tapped
from maskpre.ops.positions import sincos_2d
from maskpre.types import OUTPUT, Encoded, Grid, MaskPlan, Noise, Taps

Position = Literal["sincos", "sincos_row_first", "learned", "none"]


def _check_secondary(ratio: float, hidden: str) -> None:
    if not 0.0 <= ratio < 1.0:
        raise ValueError(f"secondary_ratio must be at least 0 and less than 1, got {ratio}")
    if ratio and hidden != "drop":
        raise ValueError(
            f"secondary_ratio {ratio} blanks what others drop; with hidden={hidden!r} it must be 0"
        )


def _check_drop_path(rate: float, net: VisionTransformer, name: str) -> None:
    if rate > 0 and not all(isinstance(block, Block) for block in net.blocks):
        raise ValueError(f"drop_path_rate {rate}: {name!r} has blocks without stochastic depth")


def _spec(net: VisionTransformer, *, in_chans: int, hidden: Hidden, may_pack: bool) -> EncoderSpec:
    grid = Grid(tuple(net.patch_embed.grid_size), tuple(net.patch_embed.patch_size))
    return EncoderSpec(
        embed_dim=net.embed_dim,
        grid=grid,
        out_grid=grid,
        num_prefix_tokens=net.num_prefix_tokens,
        in_chans=in_chans,
        hidden=hidden,
        num_layers=len(net.blocks),
        layer_dim=net.embed_dim,
        class_attention=net.cls_token is not None and all(map(gives_class_attention, net.blocks)),
        packs=may_pack and all(map(can_pack, net.blocks)),
    )


class ViT(TappedEncoder):
    """Any timm `VisionTransformer` by name; sizes given here replace the named model's.

    `hidden` "drop" encodes visible patches only (MAE), "replace" puts a learnt token where a patch is hidden
    (SimMIM). With "drop", `secondary_ratio` in [0, 1) is the share of the visible patches whose pixels are
    blanked by a learnt token too (secondary masking, UM-MAE, Li et al. 2022): drawn from the noise, in every
    pass that has any, those that see everything included. `position` "sincos" is MAE's fixed table,
    "sincos_row_first" ColorMAE's, "learned" timm's. `init` "mae" is MAE's, "timm" keeps the library's.
    `drop_path_rate` is the last block's, rising linearly.

    Raises ValueError if the name is no timm VisionTransformer or sizes don't fit.
    """

    def __init__(
        self,
        *,
        name: str,
        img_size: int,
        in_chans: int = 3,
        patch_size: int | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: float | None = None,
        class_token: bool | None = None,
        reg_tokens: int | None = None,
        init_values: float | None = None,
        drop_path_rate: float = 0.0,
        hidden: Hidden = "drop",
        secondary_ratio: float = 0.0,
        position: Position = "sincos",
        init: Literal["mae", "timm"] = "mae",
    ) -> None:
        super().__init__()
        _check_secondary(secondary_ratio, hidden)
        sizes = {
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "class_token": class_token,
            "reg_tokens": reg_tokens,
            "init_values": init_values,
            "pos_embed": "none" if position == "none" else "learn",
        }
        net = create_timm(name, VisionTransformer, img_size=img_size, in_chans=in_chans, options=sizes)
        _check_drop_path(drop_path_rate, net, name)
        self.patch_embed = net.patch_embed
        self.cls_token, self.reg_token, self.pos_embed = net.cls_token, net.reg_token, net.pos_embed
        self.norm_pre, self.blocks, self.norm = net.norm_pre, net.blocks, net.norm
        blanks = hidden == "replace" or secondary_ratio > 0
        self.mask_token = nn.Parameter(torch.zeros(1, 1, net.embed_dim)) if blanks else None
        self._secondary_ratio = secondary_ratio
        self._prefix_has_position = not net.no_embed_class
        self._drop_path = drop_path_rates(drop_path_rate, len(self.blocks))
        self._recompute = False
        self.spec = _spec(net, in_chans=in_chans, hidden=hidden, may_pack=secondary_ratio == 0)
        if init == "mae":
            self._init_mae()
        if position.startswith("sincos"):
            rows = net.num_prefix_tokens if self._prefix_has_position else 0
            self._fix_positions(first="row" if position == "sincos_row_first" else "column", prefix_rows=rows)

    @property
    def units(self) -> list[nn.Module]:
        """See `Encoder.units`."""
        return list(self.blocks)

    def _init_mae(self) -> None:
        init_mae(self)
        for token in (self.cls_token, self.reg_token, self.mask_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    def _fix_positions(self, *, first: str, prefix_rows: int) -> None:
        rows, cols = self.spec.grid.shape
        table = sincos_2d((rows, cols), self.spec.embed_dim, first=first)
        prefix = torch.zeros(prefix_rows, table.shape[1])
        self.pos_embed = nn.Parameter(torch.cat([prefix, table])[None], requires_grad=False)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def freeze_unread(self, taps: Taps) -> None:
        """See `TappedEncoder.freeze_unread`."""
        unread = self.blocks[taps.num_blocks(len(self.blocks)) :]
        for part in (*unread, *(() if taps.output else (self.norm,))):
            part.requires_grad_(False)

    def _add_positions(self, tokens: Tensor, keep: Tensor | None) -> Tensor:
        if self.pos_embed is None:
            return tokens
        table = self.pos_embed[:, -self.spec.grid.num_cells :]
        return tokens + (table if keep is None else table[0][keep])

    def _prefix(self, batch: int) -> Float[Tensor, "b p d"] | None:
        prefix: list[Tensor] = [token for token in (self.cls_token, self.reg_token) if token is not None]
        if not prefix:
            return None
        tokens = torch.cat(prefix, dim=1)
        if self.pos_embed is not None and self._prefix_has_position:
            tokens = tokens + self.pos_embed[:, : tokens.shape[1]]
        return tokens.expand(batch, -1, -1)

    def _embed(
        self,
        x: Tensor,
        plan: MaskPlan | None,
        noise: Noise | None,
        keep: Tensor | None,
        ragged: RaggedTokens | None,
    ) -> Float[Tensor, "b n d"]:
        """What enters the first block; one row of all samples if they are `ragged`."""
        prefix = self._prefix(len(x))
        if ragged is not None:
            cells = embed_patches(self.patch_embed, x, self.spec.grid, ragged.cell, ragged.sample)
            return self.norm_pre(ragged.join(prefix, self._add_positions(cells, ragged.cell)))
        tokens = embed_patches(self.patch_embed, x, self.spec.grid, keep)
        blank = self._blank(tokens.shape[1], plan, noise)
        if blank is not None and self.mask_token is not None:
            tokens = torch.where(blank[..., None], self.mask_token.to(tokens.dtype), tokens)
        tokens = self._add_positions(tokens, keep)
        return self.norm_pre(tokens if prefix is None else torch.cat([prefix, tokens], dim=1))

    def _blank(self, num: int, plan: MaskPlan | None, noise: Noise | None) -> Bool[Tensor, "b n"] | None:
        """Which of the `num` embedded patches the learnt token replaces."""
        if plan is not None and self.spec.hidden == "replace":
            return plan.mask
        if noise is None or self._secondary_ratio == 0:
            return None
        draws = noise.uniform("secondary_all" if plan is None else "secondary", num)
        return draws.argsort(dim=1) >= int(num * (1 - self._secondary_ratio))

    def forward(
        self,
        x: Float[Tensor, "b c *size"],
        plan: MaskPlan | None = None,
        noise: Noise | None = None,
        taps: Taps = OUTPUT,
    ) -> Encoded:
        """Encode under the plan; see `TappedEncoder.forward`."""
        keep = plan.keep if plan is not None and self.spec.hidden == "drop" else None
        split, ragged, lengths = self.spec.num_prefix_tokens, None, None
        if plan is not None and keep is not None and plan.lengths is not None:
            ragged, lengths = RaggedTokens.of(plan, num_prefix=split), plan.lengths
        scales = residual_scales(noise, self._drop_path, training=self.training)
        tokens, hidden, attention = run_tapped(
            list(self.blocks),
            self._embed(x, plan, noise, keep, ragged),
            scales,
            taps=taps,
            recompute=self._recompute,
            packing=None if ragged is None else ragged.packing,
        )
        tokens = self.norm(tokens) if taps.output else tokens
        if ragged is not None:
            tokens, hidden = ragged.split(tokens), {n: ragged.split(layer) for n, layer in hidden.items()}
        return Encoded(
            tokens[:, split:],
            self.spec.out_grid,
            ids=keep,
            covers=None if keep is None else "visible",
            prefix=tokens[:, :split],
            lengths=lengths,
            hidden=hidden,
            attention=attention,
        )
