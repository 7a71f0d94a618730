"""Between feature maps and their visible cells: gathering cells into a dense batch, and scattering back."""

from jaxtyping import Float, Int
from torch import Tensor

from maskpre.ops.tiles.rows import as_map, as_rows
from maskpre.ops.tiles.units import VisibleUnits


def gather_cells(
    x: Float[Tensor, "b c h w"], keep: Int[Tensor, "b v"], shape: tuple[int, ...]
) -> Float[Tensor, "n c ch cw"]:
    """Cut a map into `shape` = (rows, columns) cells and take those that `keep` lists: n = b * v of them.

    The ids of a sample must be distinct. The cells are channels last in memory. Raises ValueError if the
    cells don't divide the map.
    """
    rows, columns = shape
    tall = VisibleUnits(keep=keep, shape=(rows, columns)).pack(x)
    return as_map(as_rows(tall), keep.numel(), tall.shape[3])


def scatter_cells(
    cells: Float[Tensor, "n c ch cw"], keep: Int[Tensor, "b v"], shape: tuple[int, ...]
) -> Float[Tensor, "b c h w"]:
    """The inverse of `gather_cells`, with zeros in all other cells."""
    rows, columns = shape
    tall = as_map(as_rows(cells), len(keep), cells.shape[3])
    return VisibleUnits(keep=keep, shape=(rows, columns)).unpack(tall)
