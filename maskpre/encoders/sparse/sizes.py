"""How large the feature maps of a network are, and whether a plan's cells fit them; nothing is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import Tensor, nn

from maskpre.encoders.sparse.execution import Execution, Pointwise
from maskpre.encoders.sparse.program import Program
from maskpre.encoders.sparse.run import Result, Runner
from maskpre.ops.tiles.pool import check_pool
from maskpre.ops.tiles.windows import Pool, Window, check_tiles, windows_of
from maskpre.types import Grid

PADS_BY_SIZE = (Conv2dSame, MaxPool2dSame, AvgPool2dSame)


def paddings(layer: nn.Conv2d, size: Sequence[int]) -> tuple[int, int, int, int]:
    """What the layer pads around a map of the size: left, right, top, bottom."""
    (top, bottom), (left, right) = (
        _padding(layer, window, length) for window, length in zip(windows_of(layer), size, strict=True)
    )
    return left, right, top, bottom


def _padding(layer: nn.Module, window: Window, length: int) -> tuple[int, int]:
    if isinstance(layer, PADS_BY_SIZE):
        total = max((-(-length // window.stride) - 1) * window.stride + window.reach + 1 - length, 0)
        return total // 2, total - total // 2
    if getattr(layer, "padding", None) == "same":
        return window.padding, window.reach - window.padding
    return window.padding, window.padding


@dataclass(frozen=True)
class Size:
    """Rows and columns of a feature map."""

    shape: tuple[int, int]


class Sizes(Execution):
    """Follows the sizes of the maps, and raises ValueError where the cells of `grid` can't be told apart.

    With `in_tiles` every layer must also make tiles of tiles.
    """

    def __init__(self, grid: Grid, *, in_tiles: bool) -> None:
        self.grid, self.in_tiles = grid, in_tiles

    def enter(self, x: Any) -> Size:
        """The size itself."""
        return x if isinstance(x, Size) else Size((x.shape[2], x.shape[3]))

    def leave(self, feature: Size) -> Any:
        """The size itself."""
        return feature

    def window(self, layer: nn.Module, feature: Size) -> Size:
        """Count the outputs, and refuse a number that the cells don't divide."""
        windows = windows_of(cast(nn.Conv2d | Pool, layer))
        rows, columns = (
            _outputs(layer, window, length) for window, length in zip(windows, feature.shape, strict=True)
        )
        found = Size((rows, columns))
        cells = self.grid.shape
        axes = zip(found.shape, cells, self.grid.input_size, strict=True)
        if any(length == 0 or length % number or pixels % length for length, number, pixels in axes):
            raise ValueError(
                f"makes a map of {rows} x {columns} of one of {feature.shape[0]} x {feature.shape[1]}, in "
                f"which cells of {self.grid.stride[0]} x {self.grid.stride[1]} pixels can't be told apart; "
                "choose a network whose padding halves its maps exactly, or layer masking "
                "(encoder.border=neighbours)"
            )
        if self.in_tiles and not isinstance(layer, PADS_BY_SIZE):
            tile = feature.shape[0] // cells[0], feature.shape[1] // cells[1]
            check = check_tiles if isinstance(layer, nn.Conv2d) else check_pool
            check(cast(Any, layer), windows, tile)
        return found

    def point(self, layer: Pointwise, feature: Size, *, keeps_zero: bool) -> Size:
        """As large as before."""
        return feature

    def batch(self, layer: nn.Module, feature: Size) -> Size:
        """As large as before."""
        return feature

    def sample(self, layer: nn.Module, feature: Size) -> Size:
        """As large as before."""
        return feature

    def join(self, function: Callable[[Sequence[Tensor]], Tensor], features: Sequence[Size]) -> Size:
        """As large as each."""
        return features[0]

    def weigh(self, feature: Size, factors: Tensor) -> Size:
        """As large as before."""
        return feature

    def turn(self, feature: Size, order: tuple[int, ...]) -> Size:
        """Rows and columns stay what they are."""
        return feature


def _outputs(layer: nn.Module, window: Window, length: int) -> int:
    room = length + sum(_padding(layer, window, length)) - window.reach - 1
    if getattr(layer, "ceil_mode", False):
        return -(-room // window.stride) + 1
    return room // window.stride + 1


def check_sizes(program: Program, net: nn.Module, grid: Grid, *, in_tiles: Sequence[bool]) -> None:
    """Raise ValueError naming the first layer whose map doesn't fit the cells of `grid`.

    `in_tiles` says for each stage whether it is computed on tiles.
    """
    made = {tiles: Sizes(grid, in_tiles=tiles) for tiles in set(in_tiles)}
    executions = [made[tiles] for tiles in in_tiles]
    runner = Runner(program, net, executions=executions, scales={})
    rows, columns = grid.input_size
    results = {0: Result(Size((rows, columns)), executions[0])}
    for number, instruction in enumerate(program.instructions):
        try:
            results = runner.run(range(number, number + 1), results)
        except ValueError as error:
            raise ValueError(f"layer {instruction.target!r}: {error}") from error
