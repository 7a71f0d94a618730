"""Giving a finished file or folder the name of an older one, such that one of them is always there."""

import os
import shutil
from pathlib import Path


def fresh_folder(path: Path) -> None:
    """Make an empty folder."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def exchange(new: Path, path: Path) -> None:
    """Give `new` the name `path`. A folder can't be replaced in one go: see `recover`."""
    if path.is_dir() or (new.is_dir() and path.exists()):
        remove(_old(path))
        path.rename(_old(path))
    os.replace(new, path)
    remove(_old(path))


def recover(path: Path) -> None:
    """Finish what `exchange` was doing when the process died: bring the old one back if nothing is there."""
    if not path.exists() and _old(path).exists():
        _old(path).rename(path)
