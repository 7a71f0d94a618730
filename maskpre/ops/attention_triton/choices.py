"""Tile sizes and warps of the attention kernels by type, head and shape.

Chosen by what the compiler makes of them (`scripts/compile_attention.py`): the largest tile that spills few
registers or none. No timing went into them.
"""

from typing import Literal, NamedTuple

Kernel = Literal["forward_tile", "forward_loop", "backward_tile", "backward_queries", "backward_keys"]


class Tile(NamedTuple):
    """How a kernel is cut: queries and keys per tile, warps per program, depth of the loads ahead.

    `spill` is how many bytes of registers a thread may spill, on any device.
    """

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    spill: int = 0


# By kernel, bits of an element and whether there is a table: the widest padded head of each choice. Tiles of
# whole samples are the largest; shorter samples get smaller ones. Up to 32 bytes may be spilled, mostly on
# sm_80, where a smaller tile would fetch all keys or queries twice as often; more only in the gradients of
# wide heads with a table, whose next smaller tiles fill no tensor core of Hopper's. Exact products of float32
# use no tensor cores and spill hundreds of bytes with wide heads: float32 is for small work.
TILES: dict[tuple[Kernel, int, bool], dict[int, Tile]] = {
    ("forward_tile", 16, False): {128: Tile(64, 64, 4, 1)},
    ("forward_tile", 16, True): {128: Tile(64, 64, 4, 1)},
    ("forward_loop", 16, False): {128: Tile(64, 64, 4, 2)},
    ("forward_loop", 16, True): {64: Tile(64, 64, 4, 2), 128: Tile(64, 64, 8, 2, spill=32)},
    ("backward_tile", 16, False): {96: Tile(64, 64, 4, 1, spill=16), 128: Tile(64, 64, 8, 1)},
    ("backward_tile", 16, True): {64: Tile(64, 64, 8, 1), 128: Tile(64, 64, 8, 1, spill=192)},
    ("backward_queries", 16, False): {
        64: Tile(64, 64, 4, 2),
        96: Tile(64, 64, 4, 2, spill=32),
        128: Tile(64, 64, 4, 1),
    },
    ("backward_queries", 16, True): {
        64: Tile(64, 32, 4, 1),
        96: Tile(64, 32, 4, 1, spill=40),
        128: Tile(64, 32, 8, 1, spill=96),
    },
    ("backward_keys", 16, False): {
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 64, 4, 1),
        96: Tile(32, 64, 4, 2, spill=16),
        128: Tile(64, 64, 8, 1),
    },
    ("backward_keys", 16, True): {
        32: Tile(32, 64, 4, 2, spill=32),
        64: Tile(64, 64, 4, 1, spill=32),
        80: Tile(32, 64, 8, 3),
        96: Tile(32, 64, 8, 2, spill=8),
        128: Tile(32, 64, 8, 2),
    },
    ("forward_tile", 32, False): {128: Tile(32, 32, 4, 1)},
    ("forward_tile", 32, True): {128: Tile(32, 32, 4, 1)},
    ("forward_loop", 32, False): {128: Tile(32, 32, 4, 1)},
    ("forward_loop", 32, True): {128: Tile(32, 32, 4, 1)},
    ("backward_tile", 32, False): {128: Tile(32, 32, 8, 1)},
    ("backward_tile", 32, True): {128: Tile(32, 32, 8, 1)},
    ("backward_queries", 32, False): {128: Tile(32, 32, 4, 1)},
    ("backward_queries", 32, True): {128: Tile(32, 32, 4, 1)},
    ("backward_keys", 32, False): {128: Tile(32, 32, 4, 1)},
    ("backward_keys", 32, True): {128: Tile(32, 32, 4, 1)},
}


def choose(kernel: Kernel, *, element_bits: int, width: int, max_q: int, max_k: int, has_table: bool) -> Tile:
    """Tile of a kernel for heads of `width` padded dimensions."""
    by_width = TILES[kernel, _bits(element_bits), has_table]
    tile = by_width[min(widest for widest in by_width if widest >= width)]
    if not kernel.endswith("_tile"):
        return tile
    block_q, block_k = _cover(max_q), _cover(max_k)
    share = max(block_q, block_k) / tile.block_q
    return tile._replace(block_q=block_q, block_k=block_k, num_warps=max(1, int(tile.num_warps * share)))


def longest_tile(element_bits: int) -> int:
    """Most queries and keys of a sample that one tile holds."""
    return TILES["forward_tile", _bits(element_bits), False][128].block_q


def split_head(dim: int) -> tuple[int, int]:
    """Two powers of two that hold a head of `dim` dimensions, the second 0 where one is no larger.

    A tensor core needs 16: 80 -> (64, 16), 88 -> (64, 32), 24 -> (32, 0), 12 -> (16, 0).
    """
    whole = 1 << (max(dim, 16) - 1).bit_length()
    main = whole // 2
    tail = max(16, 1 << max(dim - main - 1, 0).bit_length())
    return (main, tail) if main + tail < whole else (whole, 0)


def _bits(element_bits: int) -> int:
    # Only the interpreter computes in float64, to prove the tiles that 16-bit types get.
    return 16 if element_bits == 64 else element_bits


def _cover(length: int) -> int:
    return max(16, 1 << (length - 1).bit_length())
