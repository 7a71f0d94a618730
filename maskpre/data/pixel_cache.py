"""Decoded pictures and clips kept in memory, shared by the main process and the workers."""

import mmap
import os
from math import prod

import torch
from jaxtyping import UInt8
from torch import Tensor

from maskpre.errors import UserError


class PixelCache:
    """Room for `count` pictures (c, h, w), or clips (t, c, h, w), of one shape; filled as they are decoded.

    The memory is an anonymous shared map: forked workers and the main process see each other's pictures,
    and the size of /dev/shm (64 MB in a default container) does not matter. Two processes that fill one
    picture at once write the same bytes.
    """

    def __init__(self, *, count: int, shape: tuple[int, ...]) -> None:
        *frames, channels, height, width = shape
        self.shape = shape
        total = count * prod(shape)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if total > memory // 2:
            raise UserError(
                f"data.cache=ram needs {total / 2**30:.1f} GiB for {count} samples of {shape}, more than "
                f"half of this machine's {memory / 2**30:.1f} GiB: set data.cache=none"
            )
        pixels = torch.frombuffer(mmap.mmap(-1, total), dtype=torch.uint8)
        self._pixels = pixels.view(count, *frames, height, width, channels)
        self._filled = torch.frombuffer(mmap.mmap(-1, count), dtype=torch.uint8)

    def get(self, index: int) -> UInt8[Tensor, "*t c h w"] | None:
        """The picture or clip, or None if nobody has stored it; not to be written to."""
        return self._pixels[index].movedim(-1, -3) if self._filled[index] else None

    def put(self, index: int, image: UInt8[Tensor, "*t c h w"]) -> None:
        """Store a picture or clip of the cache's shape; others are left out."""
        if image.shape == self.shape:
            self._pixels[index] = image.movedim(-3, -1)
            self._filled[index] = 1
