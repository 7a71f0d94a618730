"""Reading weight files without running code from them."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from maskpre.checkpoints import inert
from maskpre.checkpoints.sharded import is_sharded, read_sharded
from maskpre.checkpoints.torchscript import find_program, read_program
from maskpre.errors import UserError


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The content of a checkpoint, on the CPU: of a file, or of a folder that several ranks wrote.

    Raises UserError if it is missing, damaged, or of another kind.
    """
    return read_sharded(Path(path)) if is_sharded(Path(path)) else read_torch(path)


def read_torch(path: str | os.PathLike[str]) -> Any:
    """The content of a file written by `torch.save`, on the CPU; foreign objects become `inert.Inert`.

    Of a TorchScript archive the weights by name; its programs are not run.

    Raises UserError if the file is missing, cut off, or of another kind.
    """
    _check_file(Path(path))
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is no checkpoint: it is cut off or was not written by torch.save ({_size(Path(path))})"
        )
    try:
        return _load(path)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} can't be read as a checkpoint: {reason}") from error


def _load(path: str | os.PathLike[str]) -> Any:
    with zipfile.ZipFile(path) as archive:
        program = find_program(archive)
        if program is not None:
            return read_program(archive, program)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=inert)


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a .safetensors file; UserError if it is missing, cut off, or of another kind."""
    _check_file(Path(path))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} can't be read as safetensors ({_size(Path(path))}): {error}") from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"there is no file {path}")
    if path.is_dir():
        raise UserError(f"{path} is a folder, a file was expected")


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"
