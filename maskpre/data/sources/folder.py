"""Pictures or videos in a folder, at any depth."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maskpre.data.sources.base import PICTURES, Media, Source, StringTable
from maskpre.errors import UserError

FolderLabels = Literal["auto", "folders", "none"]


def scan_files(root: Path, media: Media = PICTURES) -> list[str]:
    """Paths below `root` of all files of a kind, relative, sorted; those starting with a dot are left out.

    Raises UserError if the folder is missing or holds no such file.
    """
    if not root.is_dir():
        raise UserError(f"the folder '{root}' does not exist")
    found: list[str] = []
    others = 0
    for folder, _, names in os.walk(root, followlinks=True):
        matching = [n for n in names if n.lower().endswith(media.suffixes) and not n.startswith(".")]
        others += len(names) - len(matching)
        prefix = Path(folder).relative_to(root)
        found.extend((prefix / name).as_posix() for name in matching)
    if not found:
        raise UserError(
            f"the folder '{root}' holds no {media.noun} ({', '.join(media.suffixes)}); "
            f"it holds {others} other files"
        )
    return sorted(found)


class FolderSource(Source):
    """All files of a kind below `root`, sorted by path, labelled by their first-level folder.

    Args:
        root: the folder.
        labels: "folders" wants every file in a first-level folder; "auto" takes labels if that is so
            and leaves the data unlabelled otherwise; "none" ignores folders.
        classes: class names in order (those of the training set, for a validation set); by default the
            sorted names of the first-level folders.
        media: pictures or videos.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        labels: FolderLabels = "auto",
        classes: Sequence[str] | None = None,
        media: Media = PICTURES,
    ) -> None:
        self.root = Path(root).expanduser()
        self.media = media
        paths = scan_files(self.root, media)
        self._paths = StringTable.of(paths)
        folders = [path.split("/", 1)[0] if "/" in path else "" for path in paths]
        loose = folders.count("")
        if labels == "folders" and loose:
            raise UserError(
                f"labels are the first-level folders of '{self.root}', but {loose} of {len(paths)} "
                f"{media.noun}s lie in no such folder, e.g. '{paths[folders.index('')]}'"
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

    def describe(self) -> str:
        """One line for logs."""
        classes = f"{len(self.classes)} classes" if self.classes else "unlabelled"
        return f"folder {self.root}: {len(self)} {self.media.noun}s, {classes}"

    def _read_bytes(self, index: int) -> NDArray[np.uint8]:
        return np.fromfile(self.key(index), dtype=np.uint8)
