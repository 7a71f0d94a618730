"""Banks of noise pictures: reading the authors' files, and cutting windows."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskpre.errors import UserError

Window = tuple[int, int]
"""Rows and columns of a cut, one sample per cell of the grid."""


def load_bank(path: str | Path) -> Float[Tensor, "s m n"]:
    """The first array of an .npz file as float32: `s` pictures of `m` x `n` samples.

    Raises UserError if the file is missing, is no .npz, or its first array is not a bank of finite numbers.
    """
    if not Path(path).is_file():
        raise UserError(f"noise bank {path} does not exist; leave masking.bank null to generate one")
    if not zipfile.is_zipfile(path):
        raise UserError(f"noise bank {path} is not an .npz file")
    with np.load(path) as archive:
        if not archive.files:
            raise UserError(f"noise bank {path} holds no array")
        images = archive[archive.files[0]]
    if images.ndim != 3 or 0 in images.shape:
        raise UserError(f"noise bank {path} must have shape (pictures, rows, columns), got {images.shape}")
    if images.dtype.kind not in "fiu" or not np.isfinite(images).all():
        raise UserError(f"noise bank {path} must hold finite numbers, got values of type {images.dtype}")
    return torch.from_numpy(images.astype(np.float32))


def check_window(window: Window, *, images: Float[Tensor, "s m n"]) -> None:
    """Refuse a bank whose pictures are smaller than the grid."""
    rows, columns = images.shape[1:]
    if window[0] > rows or window[1] > columns:
        raise UserError(
            f"a grid of {window[0]} x {window[1]} cells needs noise pictures at least as large, "
            f"the bank's are {rows} x {columns}"
        )


def cut_windows(
    images: Float[Tensor, "s m n"],
    *,
    picture: Int[Tensor, "b"],
    corner: Int[Tensor, "b 2"],
    flip: Bool[Tensor, "b 2"],
    window: Window,
) -> Float[Tensor, "b h w"]:
    """A window of one picture per sample, by first row and column, then mirrored.

    `flip` says whether to mirror horizontally (the columns) and vertically (the rows). Windows that reach
    over an edge continue at the opposite one.
    """
    rows, columns = (torch.arange(size, device=images.device)[None] for size in window)
    rows = torch.where(flip[:, 1:], window[0] - 1 - rows, rows) + corner[:, :1]
    columns = torch.where(flip[:, :1], window[1] - 1 - columns, columns) + corner[:, 1:]
    rows, columns = rows % images.shape[1], columns % images.shape[2]
    return images[picture[:, None, None], rows[:, :, None], columns[:, None, :]]


def official_windows(
    bank: Float[Tensor, "s m n"],
    crop: Int[Tensor, "p 2"],
    flips: Int[Tensor, "p 2"],
    batch: int,
    window: Window,
) -> Float[Tensor, "b h w"]:
    """ColorMAE's own sampling: picture i mod s for sample i, one crop and flip pair per pass over the bank.

    Row i // s of `crop` (row, column) and `flips` (horizontal, vertical; 0 or 1) belongs to sample i. Every
    window is divided by its maximum, which reverses the order of its values if the maximum is negative.
    """
    sample = torch.arange(batch, device=bank.device)
    number = sample // bank.shape[0]
    windows = cut_windows(
        bank,
        picture=sample % bank.shape[0],
        corner=crop[number],
        flip=flips[number].bool(),
        window=window,
    )
    return windows / windows.amax(dim=(1, 2), keepdim=True)


def window_scores(windows: Float[Tensor, "b h w"]) -> Float[Tensor, "b l"]:
    """Scores, smallest first visible: the cells of highest noise stay visible."""
    return -windows.flatten(1)


def windows_to_order(windows: Float[Tensor, "b h w"]) -> Int[Tensor, "b l"]:
    """Cells of every window by descending noise: the first are the visible ones."""
    return window_scores(windows).argsort(dim=1)
