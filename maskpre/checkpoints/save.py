"""Writing checkpoints so that a crash or a full disk never leaves half a file under the real name."""

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from maskpre.data.files import atomic_path
from maskpre.errors import UserError

PathLike = str | os.PathLike[str]


def tensor_bytes(obj: Any) -> int:
    """Bytes of all distinct tensor storages in nested mappings and sequences."""
    storages: dict[int, int] = {}
    stack = [obj]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
    return sum(storages.values())


def atomic_write(path: PathLike, write: Callable[[IO[bytes]], object], *, needed: int) -> None:
    """Let `write` fill a file beside `path`, bring it to the disk, then give it the name `path`.

    Readers see the old file or the whole new one. If it can't be written the new file is removed, the old one
    is untouched, and UserError names the path, the free and the `needed` bytes.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as beside, beside.open("wb") as file:
            write(file)
        _sync_folder(target.parent)
    except (OSError, RuntimeError) as error:
        cause = _system_error(error)
        if cause is None:
            raise
        raise UserError(_explain(target, cause, needed)) from error


def atomic_save(obj: Any, path: PathLike) -> None:
    """`torch.save` as an atomic write; see `atomic_write`."""
    atomic_write(path, lambda file: torch.save(obj, file), needed=tensor_bytes(obj))


def _sync_folder(folder: Path) -> None:
    """Make a rename inside the folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _system_error(error: BaseException) -> OSError | None:
    """The operating system's complaint, which torch.save hides behind an error of its own."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _explain(target: Path, error: OSError, needed: int) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{target} can't be written: {error.strerror or error}"
    free = shutil.disk_usage(target.parent).free
    return (
        f"{target} can't be written: the disk is full ({free:,} bytes are free, {needed:,} are needed); "
        "the file that was there before is intact"
    )
