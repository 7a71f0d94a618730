"""Decoded pictures kept in memory, shared by the main process and the workers."""

import mmap
import os

import torch
from jaxtyping import UInt8
from torch import Tensor

from maskpre.errors import UserError


class PixelCache:
    """Room for `count` pictures of one shape, filled as they are decoded for the first time.

    The memory is an anonymous shared map: forked workers and the main process see each other's pictures,
    and the size of /dev/shm (64 MB in a default container) does not matter. Two processes that fill one
    picture at once write the same bytes.
    """

    def __init__(self, *, count: int, shape: tuple[int, int, int]) -> None:
        channels, height, width = shape
        self.shape = shape
        total = count * channels * height * width
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if total > memory // 2:
            raise UserError(
                f"data.cache=ram needs {total / 2**30:.1f} GiB for {count} pictures of {shape}, more than "
                f"half of this machine's {memory / 2**30:.1f} GiB: set data.cache=none"
            )
        pixels = torch.frombuffer(mmap.mmap(-1, total), dtype=torch.uint8)
        self._pixels = pixels.view(count, height, width, channels)
        self._filled = torch.frombuffer(mmap.mmap(-1, count), dtype=torch.uint8)

    def get(self, index: int) -> UInt8[Tensor, "c h w"] | None:
        """The picture, or None if nobody has stored it; not to be written to."""
        return self._pixels[index].permute(2, 0, 1) if self._filled[index] else None

    def put(self, index: int, image: UInt8[Tensor, "c h w"]) -> None:
        """Store a picture of the cache's shape; others are left out."""
        if image.shape == self.shape:
            self._pixels[index] = image.permute(1, 2, 0)
            self._filled[index] = 1
