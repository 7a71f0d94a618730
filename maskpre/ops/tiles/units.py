"""Where the visible part of a picture lies, when only that part is kept in memory.

A plan that hides whole units leaves every sample the same number of visible units. At a stride where a unit
measures `tile` positions, the visible part of a feature map is kept as one tall map of shape
(b, c, v * tile rows, tile columns): the tiles of a sample, one below the other, channels last in memory.
Layers that look at one position at a time (1 x 1 convolutions, norms, activations, residual sums) and layers
whose kernel is their stride run on it as they are, and see no hidden position. Layers that look around
themselves need the row numbers that this module finds: a row is a position's vector of channels, and rows
are numbered as they lie in memory.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from maskpre.ops.tiles.rows import as_map, as_rows, pick, spread

Tile = tuple[int, int]


class VisibleUnits:
    """The visible units of a batch.

    `keep` holds their ids, in the order their tiles are kept in, and `shape` is the grid of units. One object
    belongs to one plan; it remembers the row numbers it has found, since many layers ask for the same ones.
    """

    def __init__(self, *, keep: Int[Tensor, "b v"], shape: Tile) -> None:
        self.keep, self.shape = keep, shape
        self._known: dict[tuple[str | int, ...], Tensor] = {}

    @property
    def num_tiles(self) -> int:
        """Visible units of all samples together."""
        return self.keep.numel()

    def tile(self, x: Float[Tensor, "b c h w"]) -> Tile:
        """How many positions of the tall map `x` a unit measures."""
        return x.shape[2] // self.keep.shape[1], x.shape[3]

    def once(self, key: tuple[str | int, ...], find: Callable[[], Tensor]) -> Tensor:
        """What `find` found when it was first asked for under this key."""
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    def count(self, span: range) -> Int[Tensor, "n"]:
        """Numbers on the device of the plan."""
        return torch.arange(span.start, span.stop, device=self.keep.device)

    def pack(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c t w"]:
        """The tall map of a whole one; ValueError if the units don't divide it."""
        if x.shape[2] % self.shape[0] or x.shape[3] % self.shape[1]:
            raise ValueError(
                f"a map of {x.shape[2]} x {x.shape[3]} positions can't be divided into "
                f"{self.shape[0]} x {self.shape[1]} units"
            )
        tile = x.shape[2] // self.shape[0], x.shape[3] // self.shape[1]
        rows = pick(as_rows(x), self.cells(tile), places=self.whole(tile).flatten())
        return as_map(rows, len(x), tile[1])

    def unpack(self, x: Float[Tensor, "b c t w"]) -> Float[Tensor, "b c h w"]:
        """The whole map of a tall one, zero where it is hidden."""
        tile = self.tile(x)
        rows = spread(as_rows(x), self.whole(tile).flatten(), ids=self.cells(tile))
        return as_map(rows, len(x), self.shape[1] * tile[1])

    def cells(self, tile: Tile) -> Int[Tensor, "n"]:
        """The number, on the whole maps of the batch, of every row that is kept."""

        def find() -> Tensor:
            top, left, sample = self._origins(tile)
            height, width = self.shape[0] * tile[0], self.shape[1] * tile[1]
            line = sample * height + top + self.count(range(tile[0]))[:, None]
            return (line * width + left + self.count(range(tile[1]))).flatten()

        return self.once(("cells", *tile), find)

    def whole(self, tile: Tile) -> Int[Tensor, "b h w"]:
        """The row kept for every position of the whole maps; one past the last where it is hidden."""

        def find() -> Tensor:
            cells = self.cells(tile)
            height, width = self.shape[0] * tile[0], self.shape[1] * tile[1]
            rows = cells.new_full((len(self.keep) * height * width,), len(cells))
            return rows.scatter(0, cells, self.count(range(len(cells)))).view(-1, height, width)

        return self.once(("whole", *tile), find)

    def around(self, tile: Tile, down: range, across: range) -> Int[Tensor, "t h w"]:
        """The rows around every tile, at the given distances from its first position.

        Where nothing is kept stands one past the last row (hidden) or two past it (outside the map).
        """

        def find() -> Tensor:
            outside = self.num_tiles * tile[0] * tile[1] + 1
            columns = max(0, -across.start), max(0, across.stop - tile[1])
            lines = max(0, -down.start), max(0, down.stop - tile[0])
            framed = pad(self.whole(tile), (*columns, *lines), value=outside)
            top, left, sample = self._origins(tile)
            line = top + lines[0] + self.count(down)[:, None]
            return framed[sample, line, left + columns[0] + self.count(across)]

        key = ("around", *tile, down.start, down.stop, across.start, across.stop)
        return self.once(key, find)

    def halo(self, tile: Tile, down: range, across: range) -> Int[Tensor, "t h w"]:
        """As `around`, with one past the last row wherever nothing is kept."""
        key = ("halo", *tile, down.start, down.stop, across.start, across.stop)
        last = self.num_tiles * tile[0] * tile[1]
        return self.once(key, lambda: self.around(tile, down, across).clamp(max=last))

    def _origins(self, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Line, column and sample (t, 1, 1) of every tile's first position on the whole maps."""
        top, left = self.keep // self.shape[1] * tile[0], self.keep % self.shape[1] * tile[1]
        sample = self.count(range(len(self.keep)))[:, None].expand_as(self.keep)
        return top.reshape(-1, 1, 1), left.reshape(-1, 1, 1), sample.reshape(-1, 1, 1)
