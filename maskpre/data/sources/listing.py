"""Files that a list names, with their class numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskpre.data.sources.base import PICTURES, Media, Source, StringTable
from maskpre.errors import UserError

_LARGEST_LABEL = 2**24 - 1


class ListSource(Source):
    """The files of a list, one a line, in its order: PATH, or PATH and a class number.

    The number -1 means no class. PATH, 0 and -1, as in VideoMAE V2's lists for pretraining, is the whole file
    without a class; the parts of files that such lists can name are refused.

    Args:
        files: the list; empty lines are left out.
        root: folder that relative paths start from.
        separator: between path and number, at least a character; what follows the last one in a line is the
            number.
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
        if not separator:
            raise UserError(
                f"the separator of the list '{self.files}' must be at least one character, got {separator!r}"
            )
        text = self.files.read_text(encoding="utf-8-sig", errors="surrogateescape")
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
        line = line.strip()
        path, found, label = line.rpartition(separator)
        path, label = path.strip(), label.strip()
        if not found or self._is_file(label):
            return line, -1
        file, *part = (column.strip() for column in path.rsplit(separator, 1))
        if not (part and self._is_file(file) and _is_integer(part[0]) and _is_integer(label)):
            return path, self._label(label, number, separator)
        if (int(part[0]), int(label)) != (0, -1):
            raise self._mistake(number, f"{line!r} names a part of a file; only the whole, 0 and -1, is read")
        return file, -1

    def _label(self, label: str, number: int, separator: str) -> int:
        if label == "-1":
            return -1
        if not (label.isascii() and label.isdigit()):
            what = f"{label!r} after {separator!r} is no class number (0, 1, ..., or -1 for none)"
            raise self._mistake(number, what)
        if not _is_integer(label) or int(label) > _LARGEST_LABEL:
            raise self._mistake(number, f"class number {label} is larger than {_LARGEST_LABEL}")
        return int(label)

    def _is_file(self, path: str) -> bool:
        return Path(path).suffix.lower() in self.media.suffixes

    def _mistake(self, number: int, what: str) -> UserError:
        return UserError(f"line {number} of '{self.files}': {what}")

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


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None
