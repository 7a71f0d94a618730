"""Grids of cells, and values that move between a coarse and a fine one."""

from dataclasses import dataclass
from math import prod

from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Cells laid over an input: `shape` cells, each `stride` input elements long, per axis."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return prod(self.shape)

    @property
    def input_size(self) -> tuple[int, ...]:
        """Size of the input the grid covers, in pixels (frames first, if any)."""
        return tuple(n * s for n, s in zip(self.shape, self.stride, strict=True))

    def refinement(self, finer: "Grid") -> tuple[int, ...]:
        """How many cells of `finer` lie along each axis of one cell of this grid.

        Raises ValueError if the cells do not nest.
        """
        factors = tuple(s // t for s, t in zip(self.stride, finer.stride, strict=True))
        nested = tuple(f * t for f, t in zip(factors, finer.stride, strict=True)) == self.stride
        if not nested or self.input_size != finer.input_size:
            raise ValueError(
                f"grid {self.shape} of stride {self.stride} can't be divided into cells of grid "
                f"{finer.shape} of stride {finer.stride}"
            )
        return factors

    @classmethod
    def over(cls, input_size: tuple[int, ...], stride: tuple[int, ...]) -> "Grid":
        """The grid of cells of `stride` covering `input_size`; ValueError if they do not divide it."""
        if any(size % step for size, step in zip(input_size, stride, strict=True)):
            raise ValueError(f"input size {input_size} is not a multiple of the cell size {stride}")
        return cls(tuple(size // step for size, step in zip(input_size, stride, strict=True)), stride)


def refine(values: Tensor, coarse: Grid, fine: Grid) -> Tensor:
    """Repeat values (b, coarse cells) so that every cell of `fine` gets its coarse cell's value."""
    factors = coarse.refinement(fine)
    cells = values.unflatten(1, coarse.shape)
    for axis, factor in enumerate(factors):
        cells = cells.repeat_interleave(factor, dim=1 + axis) if factor > 1 else cells
    return cells.flatten(1)


def split_cells(values: Tensor, fine: Grid, coarse: Grid) -> Tensor:
    """Group values (b, fine cells, ...) by coarse cell: (b, coarse cells, r, ...), r in raster order."""
    factors = coarse.refinement(fine)
    axes = [size for pair in zip(coarse.shape, factors, strict=True) for size in pair]
    dims = len(factors)
    split = values.unflatten(1, axes)
    outer = [1 + 2 * i for i in range(dims)]
    inner = [2 + 2 * i for i in range(dims)]
    rest = range(1 + 2 * dims, split.dim())
    split = split.permute(0, *outer, *inner, *rest)
    return split.flatten(1, dims).flatten(2, 1 + dims)
