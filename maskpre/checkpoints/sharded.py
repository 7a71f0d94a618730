"""Checkpoints that all ranks write together: folders in the form of torch.distributed.checkpoint (DCP)."""

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from maskpre.checkpoints.exchange import exchange, fresh_folder
from maskpre.checkpoints.save import atomic_save
from maskpre.errors import UserError

TensorPath = tuple[Any, ...]
"""Keys and positions that lead from the top of a checkpoint to a tensor."""

REST = "rest.pt"
"""What is no tensor, and where the tensors belong."""

_TENSOR = "stored apart"


def is_sharded(path: Path) -> bool:
    """Whether a path is a checkpoint in this form."""
    return (path / ".metadata").is_file()


def map_tensors(node: Any, change: Callable[[TensorPath, Tensor], Any], path: TensorPath = ()) -> Any:
    """A copy of nested mappings and lists in which every tensor is replaced by what `change` makes of it."""
    if isinstance(node, Tensor):
        return change(path, node)
    if isinstance(node, Mapping):
        return {key: map_tensors(value, change, (*path, key)) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(map_tensors(value, change, (*path, i)) for i, value in enumerate(node))
    return node


def save_sharded(
    checkpoint: Mapping[str, Any], path: Path, *, rank: int, barrier: Callable[[], object]
) -> None:
    """Write a checkpoint whose tensors may be divided among ranks, all of which must call this.

    The folder takes the place of what was at `path` when it is complete. UserError on every rank, naming
    the first that couldn't write, with the old one intact.
    """
    tensors: dict[str, Tensor] = {}

    def take(where: TensorPath, value: Tensor) -> dict[str, str]:
        name = ".".join(map(str, where))
        tensors[name] = value.detach()
        return {_TENSOR: name}

    rest = map_tensors(checkpoint, take)
    beside = path.with_name(f".{path.name}.new")
    if rank == 0:
        fresh_folder(beside)
    barrier()
    try:
        save(tensors, checkpoint_id=beside)
    except CheckpointException as error:
        failed, (cause, _) = min(error.failures.items())
        if rank == 0:
            shutil.rmtree(beside, ignore_errors=True)
        raise UserError(
            f"{path} can't be written: rank {failed}: {cause}; what was there is intact"
        ) from error
    if rank == 0:
        atomic_save(rest, beside / REST)
        exchange(beside, path)
    barrier()


def load_sharded(
    path: Path, empty: Callable[[TensorPath, torch.Size, torch.dtype], Tensor], *, alone: bool = False
) -> dict[str, Any]:
    """Read a checkpoint into the tensors that `empty` gives, each of which may be a share.

    All ranks must call this together unless `alone`. UserError if the folder is damaged.
    """
    try:
        rest = torch.load(path / REST, map_location="cpu", weights_only=True)
        stored = FileSystemReader(path).read_metadata().state_dict_metadata
        tensors: dict[str, Tensor] = {}
        loaded = _fill(rest, stored, empty, tensors)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*assum(ing|e) the intent is to load")
            load(tensors, checkpoint_id=path, no_dist=alone)
    except (CheckpointException, OSError, RuntimeError, KeyError, EOFError) as error:
        raise UserError(f"{path} can't be read as a checkpoint: {error}") from error
    return loaded


def _fill(
    node: Any,
    stored: Mapping[str, Any],
    empty: Callable[[TensorPath, torch.Size, torch.dtype], Tensor],
    tensors: dict[str, Tensor],
    path: TensorPath = (),
) -> Any:
    """The checkpoint with empty tensors in place, which are noted by name."""
    if isinstance(node, Mapping) and set(node) == {_TENSOR}:
        name = node[_TENSOR]
        about: TensorStorageMetadata = stored[name]
        tensors[name] = empty(path, about.size, about.properties.dtype)
        return tensors[name]
    if isinstance(node, Mapping):
        return {key: _fill(value, stored, empty, tensors, (*path, key)) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_fill(value, stored, empty, tensors, (*path, i)) for i, value in enumerate(node))
    return node


def read_sharded(path: Path) -> dict[str, Any]:
    """The whole checkpoint in one process, as `read_torch` gives it of a file."""
    return load_sharded(path, lambda where, shape, dtype: torch.empty(shape, dtype=dtype), alone=True)
