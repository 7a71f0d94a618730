"""Which positions a convolution or pool reads, tile by tile, and which of its outputs read a position."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from maskpre.ops.tiles.units import Tile, VisibleUnits

Pool = nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True)
class Window:
    """One axis of a layer that reads `kernel` inputs, `dilation` apart, per output."""

    kernel: int
    stride: int
    padding: int
    dilation: int = 1

    @property
    def reach(self) -> int:
        """Distance between the first and the last input of an output."""
        return self.dilation * (self.kernel - 1)

    @property
    def keeps_tiles(self) -> bool:
        """Whether n inputs make n / stride outputs, each beginning where its tile does."""
        return 0 <= self.reach - 2 * self.padding < self.stride

    @property
    def stays_inside(self) -> bool:
        """Whether no output reads another tile."""
        return self.padding == 0 and self.reach < self.stride

    def inputs(self, size: int) -> range:
        """What the outputs of a tile of `size` inputs read, counted from the tile's first input."""
        return range(-self.padding, size - self.stride + self.reach - self.padding + 1)

    def outputs(self, size: int) -> range:
        """Who reads a tile of `size` inputs, counted from the tile's first output."""
        first = -((self.reach - self.padding) // self.stride)
        return range(first, (size - 1 + self.padding) // self.stride + 1)


Windows = tuple[Window, Window]


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    down, across = (size, size) if isinstance(size, int) else size
    return down, across


def windows_of(layer: nn.Conv2d | Pool) -> Windows:
    """What the layer reads, down and across."""
    kernel, stride = _pair(layer.kernel_size), _pair(layer.stride)
    dilation = (1, 1) if isinstance(layer, nn.AvgPool2d) else _pair(layer.dilation)
    if layer.padding == "same":
        padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    else:
        padding = _pair(0 if isinstance(layer.padding, str) else layer.padding)
    down, across = (Window(*axis) for axis in zip(kernel, stride, padding, dilation, strict=True))
    return down, across


def check_tiles(layer: nn.Module, windows: Windows, tile: Tile) -> None:
    """Raise ValueError if the layer makes no tiles of tiles of this size."""
    for window, size in zip(windows, tile, strict=True):
        if size % window.stride or not window.keeps_tiles:
            raise ValueError(
                f"{layer} makes no tiles of tiles of {tile[0]} x {tile[1]} positions: its stride must divide "
                "them, and its padding must be half of what its kernel reaches over"
            )


def read_by(units: VisibleUnits, tile: Tile, windows: Windows) -> Int[Tensor, "o k"]:
    """The rows that every output of a layer reads, tap by tap; one past the last for zeros."""

    def find() -> Tensor:
        near = units.halo(tile, *(w.inputs(size) for w, size in zip(windows, tile, strict=True)))
        down, across = (
            units.count(range(size // w.stride))[:, None] * w.stride
            + units.count(range(w.kernel)) * w.dilation
            for w, size in zip(windows, tile, strict=True)
        )
        return near[:, down[:, None, :, None], across[None, :, None, :]].flatten(3).flatten(0, 2)

    return units.once(_key("read by", tile, windows), find)


def readers_of(units: VisibleUnits, tile: Tile, windows: Windows) -> Int[Tensor, "n m"]:
    """The entries of `read_by`, in raster order, that name each row; one past the last to fill up."""

    def find() -> Tensor:
        out = tile[0] // windows[0].stride, tile[1] // windows[1].stride
        near = units.halo(out, *(w.outputs(size) for w, size in zip(windows, tile, strict=True)))
        (line, down), (column, across) = (
            _readers(units, w, size) for w, size in zip(windows, tile, strict=True)
        )
        row = near[:, line[:, None, :, None], column[None, :, None, :]]
        tap = down[:, None, :, None] * windows[1].kernel + across[None, :, None, :]
        fits = (down >= 0)[:, None, :, None] & (across >= 0)[None, :, None, :]
        taps, rows = windows[0].kernel * windows[1].kernel, units.num_tiles * out[0] * out[1]
        entry = torch.where(fits & (row < rows), row * taps + tap, rows * taps)
        return entry.flatten(3).flatten(0, 2)

    return units.once(_key("readers of", tile, windows), find)


def _readers(units: VisibleUnits, window: Window, size: int) -> tuple[Tensor, Tensor]:
    """For every input of a tile, its readers as places in `window.outputs`, and by which tap (-1: none)."""
    place = units.count(range(size))[:, None] + window.padding
    if window.dilation == 1:
        # No more than every stride-th tap falls on the same input.
        steps = units.count(range(-(-window.kernel // window.stride)))
        tap = place % window.stride + window.stride * steps
    else:
        tap = units.count(range(window.kernel)).expand(size, -1)
    offset = place - tap * window.dilation
    fits = (tap < window.kernel) & (offset % window.stride == 0)
    reader = offset.div(window.stride, rounding_mode="floor") - window.outputs(size).start
    return torch.where(fits, reader, 0), torch.where(fits, tap, -1)


def copies_of(units: VisibleUnits, tile: Tile, windows: Windows) -> Int[Tensor, "n m"]:
    """The entries of the layer's `around`, in raster order, that hold each row; one past the last: none."""

    def find() -> Tensor:
        spans = [w.inputs(size) for w, size in zip(windows, tile, strict=True)]
        # How many units away a tile can lie that has this one's positions around it.
        away = [
            range(-((span.stop - 1) // size), (size - 1 - span.start) // size + 1)
            for span, size in zip(spans, tile, strict=True)
        ]
        owner = units.around((1, 1), *away)[:, None, None]
        down, across = (
            units.count(range(size))[:, None] - units.count(steps) * size - span.start
            for span, size, steps in zip(spans, tile, away, strict=True)
        )
        down, across = down[:, None, :, None], across[:, None, :]
        lines, columns = map(len, spans)
        fits = (down >= 0) & (down < lines) & (across >= 0) & (across < columns) & (owner < units.num_tiles)
        entry = torch.where(
            fits, (owner * lines + down) * columns + across, units.num_tiles * lines * columns
        )
        return entry.flatten(3).flatten(0, 2)

    return units.once(_key("copies of", tile, windows), find)


def _key(name: str, tile: Tile, windows: Windows) -> tuple[str | int, ...]:
    sizes = ((w.kernel, w.stride, w.padding, w.dilation) for w in windows)
    return (name, *tile, *(size for axis in sizes for size in axis))
