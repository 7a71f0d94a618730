"""What travels through one step: grids, mask plans, located tokens, and the step itself.

Legend of dimension letters used in shape annotations across the package:
    b  samples of the batch            l  all cells of a grid          v  visible cells of a plan
    m  hidden cells of a plan          n  tokens of some sequence      p  prefix tokens (class, registers)
    d  token width                     k  values per token             c  image channels
    h, w  picture rows, columns        r  sub-cells per cell
Ids count the cells of a grid in raster order and never count prefix tokens. A mask is True where a cell
is hidden from the encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from math import prod
from typing import Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Region = Literal["masked", "visible", "all"]
WITH_CLASS = "+cls"


def split_region(region: str) -> tuple[str, bool]:
    """The cells a region names, and whether the class token belongs to it too ("visible+cls")."""
    return region.removesuffix(WITH_CLASS), region.endswith(WITH_CLASS)


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


@dataclass(frozen=True)
class MaskPlan:
    """Which cells of `grid` are hidden from the encoder, as a mask and as ids.

    `keep` lists the visible cells in the order the encoder reads them, `hide` the hidden ones; every sample
    has the same counts. `unit` is the coarser grid the choice was made on: hidden areas are whole units.
    `decode` names the cells a decoder must produce where that is not simply the hidden ones, and `regions`
    holds further named selections (bool) or soft weights per cell.

    A ragged plan, whose samples differ in their counts, has `lengths`: only the first lengths[i] cells of row
    i of `keep` are visible, only the first l - lengths[i] of `hide` hidden, and others fill the rows.
    """

    mask: Bool[Tensor, "b l"]
    keep: Int[Tensor, "b v"]
    hide: Int[Tensor, "b m"]
    grid: Grid
    unit: Grid
    decode: Int[Tensor, "b n"] | None = None
    regions: dict[str, Tensor] = field(default_factory=dict)
    lengths: Int[Tensor, "b"] | None = None

    @classmethod
    def from_order(cls, order: Int[Tensor, "b l"], *, num_visible: int, grid: Grid) -> "MaskPlan":
        """The first `num_visible` ids of each row of `order` stay visible, in that order."""
        keep, hide = order[:, :num_visible], order[:, num_visible:]
        mask = torch.ones(order.shape, dtype=torch.bool, device=order.device).scatter_(1, keep, False)
        return cls(mask=mask, keep=keep, hide=hide, grid=grid, unit=grid)

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "b l"], *, num_hidden: int, grid: Grid) -> "MaskPlan":
        """A plan from a mask that hides exactly `num_hidden` cells of every sample; ids in raster order."""
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        num_visible = mask.shape[1] - num_hidden
        return cls(mask=mask, keep=order[:, :num_visible], hide=order[:, num_visible:], grid=grid, unit=grid)

    @classmethod
    def from_lengths(
        cls, order: Int[Tensor, "b l"], *, lengths: Int[Tensor, "b"], bounds: tuple[int, int], grid: Grid
    ) -> "MaskPlan":
        """A ragged plan: the first lengths[i] ids of row i of `order` stay visible, in that order.

        All lengths lie within `bounds`, both included, which must be known without looking at them.
        """
        fewest, most = bounds
        beyond = torch.arange(order.shape[1], device=order.device) >= lengths[:, None]
        mask = torch.zeros_like(beyond).scatter(1, order, beyond)
        keep, hide = order[:, :most], order.flip(1)[:, : order.shape[1] - fewest]
        return cls(mask=mask, keep=keep, hide=hide, grid=grid, unit=grid, lengths=lengths)

    def complement(self) -> "MaskPlan":
        """The plan that shows what this one hides."""
        lengths = None if self.lengths is None else self.grid.num_cells - self.lengths
        return replace(
            self, mask=~self.mask, keep=self.hide, hide=self.keep, decode=None, regions={}, lengths=lengths
        )

    def on(self, grid: Grid) -> "MaskPlan":
        """The same plan on a finer grid; ids are grouped by the coarse cell they come from."""
        if grid == self.grid:
            return self
        cells = torch.arange(grid.num_cells, device=self.mask.device)[None]
        members = split_cells(cells, grid, self.grid)[0]
        keep, hide = members[self.keep].flatten(1), members[self.hide].flatten(1)
        regions = {name: refine(value, self.grid, grid) for name, value in self.regions.items()}
        decode = None if self.decode is None else members[self.decode].flatten(1)
        return MaskPlan(
            mask=refine(self.mask, self.grid, grid),
            keep=keep,
            hide=hide,
            grid=grid,
            unit=self.unit,
            decode=decode,
            regions=regions,
            lengths=None if self.lengths is None else self.lengths * members.shape[1],
        )

    def settles(self, grid: Grid) -> bool:
        """Whether every cell of `grid` is hidden or visible as a whole."""
        return all(u % s == 0 for u, s in zip(self.unit.stride, grid.stride, strict=True))

    def at(self, grid: Grid) -> Bool[Tensor, "b l"]:
        """The mask on another grid; a cell that is only partly hidden counts as visible."""
        if all(s >= t for s, t in zip(self.grid.stride, grid.stride, strict=True)):
            return refine(self.mask, self.grid, grid)
        return split_cells(self.mask, self.grid, grid).all(dim=2)

    def ids(self, region: str, grid: Grid) -> Int[Tensor, "b n"] | None:
        """Cells of `grid` that cover `region`; None means every cell, in raster order."""
        if region not in ("masked", "visible") or not self.settles(grid):
            return None
        chosen = self.hide if region == "masked" else self.keep
        if grid == self.grid:
            return chosen
        share = chosen.shape[1] * grid.num_cells // self.grid.num_cells
        selected = self.at(grid) if region == "masked" else ~self.at(grid)
        return selected.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :share]

    def num_ids(self, region: str, grid: Grid) -> Int[Tensor, "b"] | None:
        """How many of a sample's `ids`, the first ones, belong to the region; None if all do."""
        if self.lengths is None or region not in ("masked", "visible") or not self.settles(grid):
            return None
        lengths = self.lengths if region == "visible" else self.grid.num_cells - self.lengths
        return lengths * grid.num_cells // self.grid.num_cells

    def region(self, name: str) -> Tensor:
        """Membership (bool) or soft weight (float) of every cell of the plan's grid in a region.

        `name` is "masked", "visible", "all", "decode", a key of `regions`, or several joined by "&", which
        multiplies them. Raises ValueError for any other name.
        """
        if "&" in name:
            return reduce(torch.mul, [self.region(part.strip()) for part in name.split("&")])
        if name in self.regions:
            return self.regions[name]
        if name == "decode" and self.decode is not None:
            return torch.zeros_like(self.mask).scatter_(1, self.decode, True)
        known = {
            "masked": self.mask,
            "visible": ~self.mask,
            "all": torch.ones_like(self.mask),
            "decode": self.mask,
        }
        if name not in known:
            raise ValueError(f"region {name!r} is unknown; choose from {sorted({*known, *self.regions})}")
        return known[name]


@dataclass(frozen=True)
class Located:
    """Tokens and the cells of `grid` they belong to; `ids` None means all cells in raster order.

    `covers` names a region of the plan if the tokens are exactly its cells. `prefix` holds tokens that belong
    to no cell, the class token first. With `lengths` only a sample's first tokens count; the others are there
    to make samples equally long and must have no weight in any loss.
    """

    tokens: Float[Tensor, "b n d"]
    grid: Grid
    ids: Int[Tensor, "b n"] | None = None
    covers: str | None = None
    prefix: Float[Tensor, "b p d"] | None = None
    lengths: Int[Tensor, "b"] | None = None

    @property
    def counted(self) -> Bool[Tensor, "b n"] | None:
        """Which tokens count; None if all do."""
        if self.lengths is None:
            return None
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]

    def with_class(self) -> Float[Tensor, "b n+1 d"]:
        """The class token, then the tokens of the cells; AssertionError without a prefix."""
        assert self.prefix is not None
        return torch.cat([self.prefix[:, :1], self.tokens], dim=1)


def gather_tokens(tokens: Tensor, ids: Int[Tensor, "b n"]) -> Tensor:
    """Pick tokens[b, ids[b, i]] for every sample."""
    return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[-1]))


def align(source: Located, *, like: Located) -> Tensor:
    """The source's tokens at the cells where `like` has its own, in its order.

    Raises ValueError if the grids differ. Cells of `like` that `source` lacks are not detected on the
    device; they yield another cell's token.
    """
    if source.grid != like.grid:
        raise ValueError(
            f"tokens on grid {source.grid.shape} of stride {source.grid.stride} can't be aligned with "
            f"grid {like.grid.shape} of stride {like.grid.stride}"
        )
    if source.ids is None:
        return source.tokens if like.ids is None else gather_tokens(source.tokens, like.ids)
    if source.ids is like.ids:
        return source.tokens
    where = source.ids.new_zeros(source.ids.shape[0], source.grid.num_cells)
    position = torch.arange(source.ids.shape[1], device=where.device)
    where.scatter_(1, source.ids, position.expand_as(source.ids))
    return gather_tokens(source.tokens, where if like.ids is None else where.gather(1, like.ids))


@dataclass(frozen=True, kw_only=True)
class Taps:
    """What is read of a network beside or instead of its final tokens.

    `hidden` counts layers from 0, what enters the first block, to the depth, what leaves the last one, before
    the final norm. `attention` names layers, from 1, whose attention from the class token to all tokens is
    read; `output` says whether the final tokens are.
    """

    hidden: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    output: bool = False

    def __or__(self, other: "Taps") -> "Taps":
        """What either reads."""
        return Taps(
            hidden=self.hidden | other.hidden,
            attention=self.attention | other.attention,
            output=self.output or other.output,
        )

    def num_blocks(self, depth: int) -> int:
        """How many of `depth` blocks must run for it; a row of attention needs only what enters its block."""
        return max({0, *self.hidden, *(layer - 1 for layer in self.attention), depth * self.output})


OUTPUT = Taps(output=True)


@dataclass(frozen=True)
class Encoded(Located):
    """An encoder's output: patch tokens where they live, prefix tokens, feature maps and what was tapped.

    `hidden` and `attention` hold what `Taps` asked for, by layer: all tokens with the prefix first, and the
    class token's attention to them per head. Where nobody reads the output, the tokens are those of the last
    layer that ran, without final norm.
    """

    maps: tuple[Tensor, ...] = ()
    hidden: Mapping[int, Float[Tensor, "b n d"]] = field(default_factory=dict)
    attention: Mapping[int, Float[Tensor, "b k n"]] = field(default_factory=dict)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before those of the cells."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    def at_layer(self, layer: int) -> Located:
        """A hidden layer that was tapped, where its tokens live."""
        tokens, split = self.hidden[layer], self.num_prefix_tokens
        prefix, cells = tokens[:, :split], tokens[:, split:]
        return Located(cells, self.grid, self.ids, self.covers, prefix, self.lengths)

    def pooled(self, pool: Literal["cls", "avg"]) -> Float[Tensor, "b d"]:
        """One vector per sample: the class token, or the mean of the patch tokens that count."""
        if pool == "avg" and self.lengths is not None:
            counted = cast(Tensor, self.counted)[..., None]
            return torch.where(counted, self.tokens, 0).sum(dim=1) / self.lengths[:, None]
        if pool == "avg":
            return self.tokens.mean(dim=1)
        if self.prefix is None or self.prefix.shape[1] == 0:
            raise ValueError("pool is 'cls', but the encoder has no class token; use 'avg'")
        return self.prefix[:, 0]


@runtime_checkable
class Noise(Protocol):
    """Random numbers that depend on the sample, not on who computes them."""

    def uniform(self, stream: str, num: int) -> Float[Tensor, "b n"]:
        """Numbers in [0, 1), the same whenever the same stream of the same samples is asked for."""
        ...


@dataclass
class Step:
    """Everything one training step has produced so far; passes and objectives fill it in order.

    `progress` is the share of the whole training done, in [0, 1]: schedules depend on nothing else.
    Plans and outputs are kept by pass, predictions by pass and predictor; losses, their maps and what
    else they measured by objective.
    """

    batch: dict[str, Tensor]
    views: dict[str, Tensor]
    noise: Noise
    progress: float
    plans: dict[str, MaskPlan] = field(default_factory=dict)
    outputs: dict[str, Encoded] = field(default_factory=dict)
    predictions: dict[str, dict[str, Located]] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    loss_maps: dict[str, Located] = field(default_factory=dict)
    metrics: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    total: Tensor | None = None
