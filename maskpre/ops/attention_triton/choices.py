"""Tile sizes and warps of the attention kernels by device, type and shape."""

from typing import Literal, NamedTuple

Kernel = Literal["forward_tile", "forward_loop", "backward_tile", "backward_queries", "backward_keys"]

LONGEST_TILE = 64


class Tile(NamedTuple):
    """How a kernel is cut: queries and keys per tile, warps per program, depth of the loads ahead."""

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int


def split_head(dim: int) -> tuple[int, int]:
    """Two powers of two that hold a head of `dim` dimensions, the second 0 where one is no larger.

    A tensor core needs 16: 80 -> (64, 16), 88 -> (64, 32), 24 -> (32, 0), 12 -> (16, 0).
    """
    whole = 1 << (max(dim, 16) - 1).bit_length()
    main = whole // 2
    tail = max(16, 1 << max(dim - main - 1, 0).bit_length())
    return (main, tail) if main + tail < whole else (whole, 0)


def choose(kernel: Kernel, *, element_bits: int, width: int, max_q: int, max_k: int, has_table: bool) -> Tile:
    """Tile of a kernel for heads of `width` padded dimensions."""
    tile = Tile(64, 64, 4, 2)
    if kernel.endswith("_tile"):
        return tile._replace(block_q=_cover(max_q), block_k=_cover(max_k))
    return tile


def _cover(length: int) -> int:
    return max(16, 1 << (length - 1).bit_length())
