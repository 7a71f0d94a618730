"""Between pictures and sequences of patches. Inside a patch the order is (row, column, channel)."""

from jaxtyping import Float
from torch import Tensor

from maskpre.types import Grid


def check_size(image: Float[Tensor, "b c h w"], grid: Grid) -> None:
    """Raise ValueError if the picture is not of the grid's input size."""
    if tuple(image.shape[2:]) != grid.input_size:
        raise ValueError(f"picture of {tuple(image.shape[2:])} pixels, expected {grid.input_size}")


def patch_view(image: Float[Tensor, "b c h w"], grid: Grid) -> Float[Tensor, "b gh gw c ph pw"]:
    """The patches of a picture as a view: no value is copied.

    Raises ValueError if the picture is not of the grid's input size.
    """
    check_size(image, grid)
    (rows, cols), (height, width) = grid.shape, grid.stride
    return image.unflatten(3, (cols, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5)


def patchify(image: Float[Tensor, "b c h w"], grid: Grid) -> Float[Tensor, "b l k"]:
    """Picture to patch vectors, channel fastest: k = patch rows * patch columns * channels."""
    return patch_view(image, grid).permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(1, 2)


def unpatchify(patches: Float[Tensor, "b l k"], grid: Grid) -> Float[Tensor, "b c h w"]:
    """The inverse of `patchify`."""
    (rows, cols), (height, width) = grid.shape, grid.stride
    cells = patches.unflatten(2, (height, width, -1)).unflatten(1, (rows, cols))
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
