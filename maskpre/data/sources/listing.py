"""Files that a list names, with their class numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskpre.data.sources.base import PICTURES, Media, Source, StringTable
from maskpre.errors import UserError


class ListSource(Source):
    """The files of a list, one a line, in its order: PATH, or PATH and a class number.

    Args:
        files: the list; empty lines are left out.
        root: folder that relative paths start from.
        separator: between path and number; what follows the last one in a line is the number.
        classes: class names in label order; by default the numbers up to the largest.
        media: what messages call the files.
    """

    def __init__(
        self,
        *,
        files: str | Path,
        root: str | Path,
        separator: str = ",",
        classes: Sequence[str] | None = None,
        media: Media = PICTURES,
    ) -> None:
        self.files = Path(files).expanduser()
        self.root = Path(root).expanduser()
        self.media = media
        if not self.files.is_file():
            raise UserError(f"the list '{self.files}' does not exist")
        text = self.files.read_text(encoding="utf-8", errors="surrogateescape")
        entries = [
            self._parse(line, n, separator) for n, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
        if not entries:
            raise UserError(f"the list '{self.files}' names no {media.noun}")
        paths, labels = zip(*entries, strict=True)
        self._paths = StringTable.of(paths)
        self.labels = np.array(labels, dtype=np.int64)
        self.classes = self._class_names(classes)

    def _parse(self, line: str, number: int, separator: str) -> tuple[str, int]:
        path, found, label = line.strip().rpartition(separator)
        if not found or Path(label).suffix.lower() in self.media.suffixes:
            return line.strip(), -1
        if not label.strip().isdigit():
            raise UserError(
                f"line {number} of '{self.files}': {label.strip()!r} after {separator!r} is no class number "
                "(0, 1, ...)"
            )
        return path.strip(), int(label)

    def _class_names(self, classes: Sequence[str] | None) -> tuple[str, ...]:
        count = int(self.labels.max()) + 1
        if classes is None:
            return tuple(str(number) for number in range(count))
        if count > len(classes):
            raise UserError(f"'{self.files}' has label {count - 1}, but there are {len(classes)} classes")
        return tuple(classes) if count else ()

    def key(self, index: int) -> str:
        """Path of the file."""
        return str(self.root / self._paths[index])

    def describe(self) -> str:
        """One line for logs."""
        classes = f"{len(self.classes)} classes" if self.classes else "unlabelled"
        return f"list {self.files}: {len(self)} {self.media.noun}s, {classes}"

    def _read_bytes(self, index: int) -> NDArray[np.uint8]:
        return np.fromfile(self.key(index), dtype=np.uint8)
