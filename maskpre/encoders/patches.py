"""Embedding the patches of a picture, all of them or the visible ones only."""

import torch
from jaxtyping import Float, Int
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from maskpre.ops.patchify import check_size, patch_view
from maskpre.types import Grid, gather_tokens


def visible_patches(
    x: Float[Tensor, "b c h w"], grid: Grid, keep: Int[Tensor, "*n"], sample: Int[Tensor, "..."] | None = None
) -> Float[Tensor, "*n c ph pw"]:
    """The pixels of the patches `keep`, in that order; ValueError unless the picture is the grid's size.

    `keep` is (b, v), or lists patches of the samples `sample` beside it.
    """
    rows, cols = keep // grid.shape[1], keep % grid.shape[1]
    sample = torch.arange(len(x), device=x.device)[:, None] if sample is None else sample
    return patch_view(x, grid)[sample, rows, cols]


def embed_patches(
    embed: nn.Module,
    x: Float[Tensor, "b c h w"],
    grid: Grid,
    keep: Int[Tensor, "*n"] | None,
    sample: Int[Tensor, "..."] | None = None,
) -> Float[Tensor, "*n d"]:
    """Patch embeddings in the order of `keep`, or of all patches in raster order (b, l, d) without it.

    `keep` is (b, v), or lists patches of the samples `sample` beside it. Hidden patches are never multiplied
    where the embedding is timm's plain convolution. Raises ValueError if the picture is not of the grid's
    input size.
    """
    check_size(x, grid)
    if keep is None:
        return embed(x)
    if type(embed) is not PatchEmbed:
        return gather_tokens(embed(x), keep) if sample is None else embed(x)[sample, keep]
    patches = visible_patches(x, grid, keep, sample).flatten(-3)
    return embed.norm(nn.functional.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias))
