"""The layers of ConvMAE's hybrid network, for pretraining and for classifying alike."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from math import prod

import torch
from jaxtyping import Float, Int
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maskpre.encoders.blocks import drop_path_rates, residual_scales, run_blocks
from maskpre.encoders.conv_stage import ConvBlock, ConvEmbed, Places, merge, run_conv_block
from maskpre.encoders.create import check_heads
from maskpre.encoders.init import init_mae
from maskpre.encoders.patches import visible_patches
from maskpre.nearest import multiples, nearest_number
from maskpre.ops.patchify import patch_view
from maskpre.ops.positions import sincos_2d
from maskpre.types import Grid, Noise

NUM_STAGES = 3


@dataclass(frozen=True, kw_only=True)
class ConvViTSizes:
    """Sizes of the network; sequences have one entry for each of its three stages.

    Cells are the product of `patch_sizes` pixels long. Raises ValueError for sizes that don't go together.
    """

    img_size: int
    in_chans: int
    patch_sizes: Sequence[int]
    embed_dims: Sequence[int]
    depths: Sequence[int]
    num_heads: int
    mlp_ratios: Sequence[float]

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not isinstance(value, int) and len(value) != NUM_STAGES:
                raise ValueError(f"{name} must have {NUM_STAGES} entries, one per stage, got {list(value)}")
        cell = self.stride(NUM_STAGES - 1)
        if self.img_size % cell:
            nearest = nearest_number(self.img_size, multiples(cell, near=self.img_size))
            raise ValueError(
                f"img_size ({self.img_size}) must be a multiple of the product of patch_sizes "
                f"({cell}){nearest}"
            )
        check_heads(self.num_heads, self.embed_dims[-1])

    def stride(self, stage: int) -> int:
        """Pixels between neighbouring tokens of a stage, counted from 0."""
        return prod(self.patch_sizes[: stage + 1])

    def grid(self, stage: int) -> Grid:
        """Where the tokens of a stage lie."""
        return Grid.over((self.img_size,) * 2, (self.stride(stage),) * 2)


class ConvViTTrunk(nn.Module):
    """Two convolution stages and a transformer, with ConvMAE's names, initialisation and layer norms.

    With `multi_scale` the outputs of both convolution stages are added to the transformer's.
    """

    def __init__(self, *, sizes: ConvViTSizes, multi_scale: bool, drop_path_rate: float) -> None:
        super().__init__()
        self.sizes = sizes
        dims, depths, ratios = sizes.embed_dims, sizes.depths, sizes.mlp_ratios
        self.patch_embed1, self.patch_embed2, self.patch_embed3 = (
            ConvEmbed(in_dim=before, dim=dim, patch_size=patch_size)
            for before, dim, patch_size in zip((sizes.in_chans, *dims), dims, sizes.patch_sizes, strict=False)
        )
        self.patch_embed4 = nn.Linear(dims[2], dims[2])
        self.blocks1, self.blocks2 = (
            nn.ModuleList(ConvBlock(dim=dims[i], mlp_ratio=ratios[i]) for _ in range(depths[i]))
            for i in range(NUM_STAGES - 1)
        )
        self.blocks3 = nn.ModuleList(
            Block(dims[2], sizes.num_heads, ratios[2], qkv_bias=True, norm_layer=LayerNorm)
            for _ in range(depths[2])
        )
        self.stage1_output_decode, self.stage2_output_decode = (
            self._skip(i) if multi_scale else None for i in range(NUM_STAGES - 1)
        )
        rows, cols = sizes.grid(2).shape
        self.pos_embed = nn.Parameter(sincos_2d((rows, cols), dims[2])[None])
        self.norm: nn.Module = LayerNorm(dims[2])
        self._drop_path = drop_path_rates(drop_path_rate, sum(depths))
        self._recompute = False
        self._init()

    def _skip(self, stage: int) -> nn.Conv2d:
        side = self.sizes.stride(2) // self.sizes.stride(stage)
        return nn.Conv2d(self.sizes.embed_dims[stage], self.sizes.embed_dims[2], side, stride=side)

    def _init(self) -> None:
        """MAE's, but of the convolutions only the last patch embedding's leaves torch's default."""
        init_mae(self)
        for part in self.modules():
            if isinstance(part, nn.Conv2d) and part is not self.patch_embed3.proj:
                part.reset_parameters()

    @property
    def _conv_stages(self) -> tuple[tuple[ConvEmbed, nn.ModuleList, nn.Conv2d | None], ...]:
        """Patch embedding, blocks and skip of each convolution stage."""
        return (
            (self.patch_embed1, self.blocks1, self.stage1_output_decode),
            (self.patch_embed2, self.blocks2, self.stage2_output_decode),
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def tokens(
        self, x: Float[Tensor, "b c h w"], keep: Int[Tensor, "b v"] | None, noise: Noise | None
    ) -> Float[Tensor, "b v d"]:
        """Tokens of the cells `keep`, or of all in raster order, before the last norm."""
        grid, scales = self.sizes.grid(2), residual_scales(noise, self._drop_path, training=self.training)
        if keep is None:
            patches = patch_view(x, grid).flatten(1, 2)
            keep = torch.arange(grid.num_cells, device=x.device)[None].expand(len(x), -1)
        else:
            patches = visible_patches(x, grid, keep)
        tokens, side = patches.permute(0, 1, 3, 4, 2).flatten(1, 3), grid.stride[0]
        skips = []
        for stage, (embed, blocks, skip) in enumerate(self._conv_stages):
            tokens = embed(tokens, side=side)
            side //= embed.proj.stride[0]
            run = partial(run_conv_block, places=Places.inside(keep, grid, self.sizes.grid(stage)))
            mine, scales = scales[: len(blocks)], scales[len(blocks) :]
            tokens = run_blocks(blocks, tokens, mine, recompute=self._recompute, run=run)
            if skip is not None:
                skips.append(merge(tokens, skip, side=side, factor=side))
        tokens = self.patch_embed4(self.patch_embed3(tokens, side=side)) + self.pos_embed[0][keep]
        tokens = run_blocks(self.blocks3, tokens, scales, recompute=self._recompute)
        return sum(skips, start=tokens)
