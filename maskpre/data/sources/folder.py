"""Pictures in a folder, at any depth."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maskpre.data.sources.base import PICTURE_SUFFIXES, Source, StringTable
from maskpre.errors import UserError

FolderLabels = Literal["auto", "folders", "none"]


def scan_pictures(root: Path) -> list[str]:
    """Paths below `root` of all pictures, relative, sorted; files whose names start with a dot are left out.

    Raises UserError if the folder is missing or holds no picture.
    """
    if not root.is_dir():
        raise UserError(f"the folder '{root}' does not exist")
    found: list[str] = []
    others = 0
    for folder, _, names in os.walk(root, followlinks=True):
        pictures = [n for n in names if n.lower().endswith(PICTURE_SUFFIXES) and not n.startswith(".")]
        others += len(names) - len(pictures)
        prefix = Path(folder).relative_to(root)
        found.extend((prefix / name).as_posix() for name in pictures)
    if not found:
        raise UserError(
            f"the folder '{root}' holds no picture ({', '.join(PICTURE_SUFFIXES)}); "
            f"it holds {others} other files"
        )
    return sorted(found)


class FolderSource(Source):
    """All pictures below `root`, sorted by path, labelled by their first-level folder.

    Args:
        root: the folder.
        labels: "folders" wants every picture in a first-level folder; "auto" takes labels if that is so
            and leaves the data unlabelled otherwise; "none" ignores folders.
        classes: class names in order (those of the training set, for a validation set); by default the
            sorted names of the first-level folders.
    """

    def __init__(
        self, *, root: str | Path, labels: FolderLabels = "auto", classes: Sequence[str] | None = None
    ) -> None:
        self.root = Path(root).expanduser()
        paths = scan_pictures(self.root)
        self._paths = StringTable.of(paths)
        folders = [path.split("/", 1)[0] if "/" in path else "" for path in paths]
        loose = folders.count("")
        if labels == "folders" and loose:
            raise UserError(
                f"labels are the first-level folders of '{self.root}', but {loose} of {len(paths)} pictures "
                f"lie in no such folder, e.g. '{paths[folders.index('')]}'"
            )
        if labels == "none" or loose:
            self.classes = ()
            self.labels = np.full(len(paths), -1, dtype=np.int64)
        else:
            self.classes = tuple(sorted(set(folders)) if classes is None else classes)
            self.labels = self._label(folders)

    def _label(self, folders: list[str]) -> NDArray[np.int64]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        unknown = sorted(set(folders) - numbers.keys())
        if unknown:
            raise UserError(
                f"'{self.root}' has {len(unknown)} class folders that the training data lack: "
                f"{', '.join(unknown[:5])}"
            )
        return np.array([numbers[folder] for folder in folders], dtype=np.int64)

    def key(self, index: int) -> str:
        """Path of the file."""
        return str(self.root / self._paths[index])

    def relative_path(self, index: int) -> str:
        """Path of the file below the root, with forward slashes."""
        return self._paths[index]

    def describe(self) -> str:
        """One line for logs."""
        classes = f"{len(self.classes)} classes" if self.classes else "unlabelled"
        return f"folder {self.root}: {len(self)} pictures, {classes}"

    def _read_bytes(self, index: int) -> NDArray[np.uint8]:
        return np.fromfile(self.key(index), dtype=np.uint8)
