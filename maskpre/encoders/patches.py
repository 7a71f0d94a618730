"""Embedding the patches of a picture or the tubelets of a clip, all of them or the visible ones only."""

from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from maskpre.ops.patchify import check_size, patch_view
from maskpre.types import Grid, gather_tokens


class TubeletEmbed(nn.Module):
    """Embeds tubelets of `stride` (frames, rows, columns) of a clip of `size` by one 3-D convolution.

    Named like timm's `PatchEmbed`; the weight is (d, c, frames, rows, columns). Raises ValueError if tubelets
    don't divide the clip.
    """

    def __init__(
        self, *, size: tuple[int, int, int], stride: tuple[int, int, int], in_chans: int, embed_dim: int
    ) -> None:
        super().__init__()
        self.grid = Grid.over(size, stride)
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=stride, stride=stride)
        self.norm = nn.Identity()

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b l d"]:
        """All tubelets in raster order."""
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


def visible_patches(
    x: Float[Tensor, "b c *size"],
    grid: Grid,
    keep: Int[Tensor, "*n"],
    sample: Int[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    """The pixels (*n, c, [pt,] ph, pw) of the patches `keep`, in that order; ValueError unless the picture or
    clip is of the grid's size.

    `keep` is (b, v), or lists patches of the samples `sample` beside it.
    """
    places: list[Tensor] = []
    rest = keep
    for size in reversed(grid.shape[1:]):
        places.insert(0, rest % size)
        rest = rest // size
    sample = torch.arange(len(x), device=x.device)[:, None] if sample is None else sample
    return patch_view(x, grid)[(sample, rest, *places)]


def embed_patches(
    embed: nn.Module,
    x: Float[Tensor, "b c *size"],
    grid: Grid,
    keep: Int[Tensor, "*n"] | None,
    sample: Int[Tensor, "..."] | None = None,
) -> Float[Tensor, "*n d"]:
    """Patch embeddings in the order of `keep`, or of all patches in raster order (b, l, d) without it.

    `keep` is (b, v), or lists patches of the samples `sample` beside it. Hidden patches are never multiplied
    where the embedding is one plain convolution. Raises ValueError if the picture or clip is not of the
    grid's input size.
    """
    check_size(x, grid)
    if keep is None:
        return embed(x)
    if not (type(embed) is PatchEmbed or type(embed) is TubeletEmbed):
        return gather_tokens(embed(x), keep) if sample is None else embed(x)[sample, keep]
    convolution: Any = embed.proj
    patches = visible_patches(x, grid, keep, sample).flatten(keep.dim())
    return embed.norm(nn.functional.linear(patches, convolution.weight.flatten(1), convolution.bias))
