"""Shifted-window transformers from timm."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float, Int32
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn

from maskpre.encoders.attend import backend_for_bias, backend_of
from maskpre.encoders.base import Encoder, EncoderSpec, Hidden
from maskpre.encoders.blocks import Scales, drop_path_rates, residual_scales, run_blocks
from maskpre.encoders.create import check_heads, create_timm
from maskpre.encoders.init_simmim import STD, init_simmim_swin
from maskpre.ops.masked_attention import masked_attention_qkv
from maskpre.ops.patchify import check_size
from maskpre.ops.positions import relative_codes, relative_offset
from maskpre.types import Encoded, Grid, MaskPlan, Noise


class Swin(Encoder):
    """Any timm `SwinTransformer` by name (Liu et al. 2021); sizes given here replace the named model's.

    Hidden patches are replaced by a learnt token after the patch embedding's norm, before any position
    (SimMIM, Xie et al. 2022): plans live on the patch grid, tokens come out on the last stage's grid. A stage
    no larger than `window_size` is one window without shift; windows that don't divide a stage are padded.
    `position` "learned" adds one vector per patch, `patch_norm` "none" leaves the patch embedding without
    norm; timm knows neither. `init` "simmim" is SimMIM's, "timm" keeps the library's. `drop_path_rate` is the
    last block's, rising linearly.

    Raises ValueError if the name is no timm SwinTransformer, sizes don't fit, or `hidden` is "drop".
    """

    def __init__(
        self,
        *,
        name: str,
        img_size: int,
        in_chans: int = 3,
        patch_size: int | None = None,
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        window_size: int | None = None,
        mlp_ratio: float | None = None,
        qkv_bias: bool = True,
        patch_norm: Literal["layer", "none"] = "layer",
        position: Literal["none", "learned"] = "none",
        drop_path_rate: float = 0.0,
        hidden: Hidden = "replace",
        init: Literal["simmim", "timm"] = "simmim",
    ) -> None:
        super().__init__()
        if hidden != "replace":
            raise ValueError(f"a Swin's windows need every patch: hidden must be 'replace', got {hidden!r}")
        if (None if depths is None else len(depths)) != (None if num_heads is None else len(num_heads)):
            raise ValueError(
                f"depths ({depths}) and num_heads ({num_heads}) must have one entry per stage each"
            )
        sizes = {
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depths": None if depths is None else tuple(depths),
            "num_heads": None if num_heads is None else tuple(num_heads),
            "window_size": window_size,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "drop_path_rate": 0.0,
        }
        net = create_timm(name, SwinTransformer, img_size=img_size, in_chans=in_chans, options=sizes)
        self.patch_embed, self.layers, self.norm = net.patch_embed, net.layers, net.norm
        if patch_norm == "none":
            self.patch_embed.norm = nn.Identity()
        self.spec = _spec(net)
        width = cast(PatchEmbed, self.patch_embed).proj.out_channels
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        places = torch.empty(1, self.spec.grid.num_cells, width)
        self.absolute_pos_embed = nn.Parameter(places) if position == "learned" else None
        blocks = [cast(SwinTransformerBlock, block) for stage in self._stages for block in stage.blocks]
        for block in blocks:
            _number(block)
        num_blocks = len(blocks)
        self._drop_path = drop_path_rates(drop_path_rate, num_blocks)
        self._recompute = False
        self._init(init)

    def _init(self, init: str) -> None:
        tokens = [token for token in (self.mask_token, self.absolute_pos_embed) if token is not None]
        if init == "simmim":
            init_simmim_swin(self, tokens=tokens)
            return
        for token in tokens:
            nn.init.trunc_normal_(token, std=STD)

    @property
    def _stages(self) -> list[SwinTransformerStage]:
        return cast(list[SwinTransformerStage], list(self.layers))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def _embed(self, x: Float[Tensor, "b c h w"], plan: MaskPlan | None) -> Float[Tensor, "b gh gw d"]:
        check_size(x, self.spec.grid)
        tokens = self.patch_embed(x)
        if plan is not None:
            mask = plan.mask.unflatten(1, self.spec.grid.shape)[..., None]
            tokens = torch.where(mask, self.mask_token[0].to(tokens.dtype), tokens)
        if self.absolute_pos_embed is None:
            return tokens
        return tokens + self.absolute_pos_embed.unflatten(1, self.spec.grid.shape)

    def forward(
        self, x: Float[Tensor, "b c h w"], plan: MaskPlan | None = None, noise: Noise | None = None
    ) -> Encoded:
        """Encode under the plan; see `Encoder.forward`. Tokens lie on `spec.out_grid`, in raster order."""
        tokens = self._embed(x, plan)
        scales = residual_scales(noise, self._drop_path, training=self.training)
        first = 0
        for stage in self._stages:
            chosen = scales[first : first + len(stage.blocks)]
            first += len(stage.blocks)
            tokens = run_blocks(
                stage.blocks, stage.downsample(tokens), chosen, recompute=self._recompute, run=_run_block
            )
        return Encoded(self.norm(tokens).flatten(1, 2), self.spec.out_grid)


def _number(block: SwinTransformerBlock) -> None:
    """Give the block the codes of a window's cells, and the region that each cell of each window is from.

    A shifted window holds cells from up to four sides of the picture, which must not see each other; the
    first cell that one may see stands for its region.
    """
    block.register_buffer("codes", relative_codes(block.window_size), persistent=False)
    mask = cast(Tensor | None, block.attn_mask)
    regions = None if mask is None else torch.eq(mask, 0).to(torch.uint8).argmax(dim=2).to(torch.int32)
    block.register_buffer("regions", regions, persistent=False)


def _attend(block: SwinTransformerBlock, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
    """Attention in (shifted) windows, as `block._attn` where no kernel takes it."""
    if backend_for_bias(block.attn, x.flatten(1, 2)) == "sdpa":
        return block._attn(x)
    (down, right), (height, width) = block.shift_size, block.window_size
    rows, cols = x.shape[1:3]
    padding = (0, 0, 0, -cols % width, 0, -rows % height)
    shifted = nn.functional.pad(torch.roll(x, (-down, -right), (1, 2)), padding)
    windows = window_partition(shifted, block.window_size)
    mixed = _attend_windows(block, windows.flatten(1, 2)).view_as(windows)
    shifted = window_reverse(mixed, block.window_size, *shifted.shape[1:3])[:, :rows, :cols]
    return torch.roll(shifted, (down, right), (1, 2))


def _attend_windows(block: SwinTransformerBlock, windows: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    attn = block.attn
    table = attn.relative_position_bias_table.t().contiguous()
    regions = cast(Int32[Tensor, "k n"] | None, block.regions)
    mixed = masked_attention_qkv(
        attn.qkv(windows).unflatten(2, (3, attn.num_heads, -1)),
        group=None if regions is None else regions.repeat(len(windows) // len(regions), 1),
        bias_table=table.to(torch.promote_types(table.dtype, torch.float32)),
        code=cast(Tensor, block.codes),
        code_offset=relative_offset(block.window_size),
        scale=attn.scale,
        backend=backend_of(attn),
    )
    return attn.proj(mixed.flatten(2))


def _run_block(
    block: SwinTransformerBlock, x: Float[Tensor, "b h w d"], scales: Scales
) -> Float[Tensor, "b h w d"]:
    """One windowed block; with `scales`, its residual branches are weighted per sample."""
    if scales is None:
        x = x + _attend(block, block.norm1(x))
        return x + block.mlp(block.norm2(x))
    first, second = (scale[..., None].to(x.dtype) for scale in scales)
    x = x + first * _attend(block, block.norm1(x))
    return x + second * block.mlp(block.norm2(x))


def _spec(net: SwinTransformer) -> EncoderSpec:
    embed = cast(PatchEmbed, net.patch_embed)
    grid = Grid(tuple(embed.grid_size), tuple(embed.patch_size))
    merging = 2 ** (len(net.layers) - 1)
    if any(size % merging for size in grid.shape):
        raise ValueError(
            f"{len(net.layers)} stages halve the grid of {grid.shape} patches between stages; its sides "
            f"must be multiples of {merging}"
        )
    for stage in net.layers:
        block = cast(SwinTransformerBlock, cast(SwinTransformerStage, stage).blocks[0])
        check_heads(block.attn.num_heads, block.dim)
    return EncoderSpec(
        embed_dim=net.num_features,
        grid=grid,
        out_grid=Grid.over(grid.input_size, tuple(step * merging for step in grid.stride)),
        num_prefix_tokens=0,
        in_chans=embed.proj.in_channels,
        hidden="replace",
    )
