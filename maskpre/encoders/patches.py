"""Embedding the patches of a picture, all of them or the visible ones only."""

import torch
from jaxtyping import Float, Int
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from maskpre.ops.patchify import check_size, patch_view
from maskpre.types import Grid, gather_tokens


def visible_patches(
    x: Float[Tensor, "b c h w"], grid: Grid, keep: Int[Tensor, "b v"]
) -> Float[Tensor, "b v c ph pw"]:
    """The pixels of the patches `keep`, in that order; ValueError unless the picture is the grid's size."""
    rows, cols = keep // grid.shape[1], keep % grid.shape[1]
    samples = torch.arange(len(x), device=x.device)[:, None]
    return patch_view(x, grid)[samples, rows, cols]


def embed_patches(
    embed: nn.Module, x: Float[Tensor, "b c h w"], grid: Grid, keep: Int[Tensor, "b v"] | None
) -> Float[Tensor, "b n d"]:
    """Patch embeddings in the order of `keep`, or of all patches in raster order without it.

    Hidden patches are never multiplied where the embedding is timm's plain convolution. Raises ValueError if
    the picture is not of the grid's input size.
    """
    check_size(x, grid)
    if keep is None:
        return embed(x)
    if type(embed) is not PatchEmbed:
        return gather_tokens(embed(x), keep)
    patches = visible_patches(x, grid, keep).flatten(2)
    return embed.norm(nn.functional.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias))
