"""Which cells are hidden: regions and mask plans."""

from dataclasses import dataclass, field, replace
from functools import reduce

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from maskpre.types.grid import Grid, refine, split_cells

WITH_CLASS = "+cls"
# What every plan has, beside its own `regions`.
REGIONS = ("masked", "visible", "all", "decode")


def split_region(region: str) -> tuple[str, bool]:
    """The cells a region names, and whether the class token belongs to it too ("visible+cls")."""
    return region.removesuffix(WITH_CLASS), region.endswith(WITH_CLASS)


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
        if name not in REGIONS:
            raise ValueError(f"region {name!r} is unknown; choose from {sorted({*REGIONS, *self.regions})}")
        if name == "all":
            return torch.ones_like(self.mask)
        if name == "visible":
            return ~self.mask
        if name == "decode" and self.decode is not None:
            return torch.zeros_like(self.mask).scatter_(1, self.decode, True)
        return self.mask
