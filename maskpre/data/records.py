"""Records of one size on disk, one per row, in files of many rows that are written whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from maskpre.data.files import atomic_path
from maskpre.errors import UserError

Precision = Literal["fp32", "fp16", "bf16"]

_SHARD_BYTES = 2**27
_FILLED = "filled"
# numpy knows no bfloat16.
_STORED = {"fp32": np.float32, "fp16": np.float16, "bf16": np.int16}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class MissingRowError(Exception):
    """A row that was asked for has never been written; the message says which."""


@dataclass(frozen=True)
class Column:
    """One tensor per row."""

    shape: tuple[int, ...]
    precision: Precision


@dataclass(frozen=True)
class Table:
    """Where `num_rows` rows of `columns` lie below `folder`."""

    folder: Path
    columns: Mapping[str, Column]
    num_rows: int

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """One row: its columns, packed, and whether it was written."""
        fields = [(name, _STORED[one.precision], one.shape) for name, one in self.columns.items()]
        return np.dtype([*fields, (_FILLED, np.uint8)])

    @property
    def num_bytes(self) -> int:
        """Size of all rows."""
        return self.num_rows * self.dtype.itemsize

    @property
    def rows_per_shard(self) -> int:
        """Rows of every file but the last."""
        return max(1, _SHARD_BYTES // self.dtype.itemsize)

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"rows-{shard:06}.bin"

    def rows(self, shard: int) -> range:
        """The rows in a shard."""
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.num_rows))

    @property
    def num_shards(self) -> int:
        """Number of files."""
        return -(-self.num_rows // self.rows_per_shard)

    def missing(self) -> list[int]:
        """Shards that are not there yet."""
        return [shard for shard in range(self.num_shards) if not self.path(shard).is_file()]

    def new_shard(self, shard: int) -> "NewShard":
        """A shard to be filled in memory."""
        return NewShard(self, self.rows(shard).start, np.zeros(len(self.rows(shard)), self.dtype))


@dataclass(frozen=True)
class NewShard:
    """Rows from `start` on in memory, empty at first."""

    table: Table
    start: int
    records: NDArray[Any]

    def put(self, rows: Int[Tensor, "b"], values: Mapping[str, Tensor]) -> None:
        """Fill some rows; UserError if a value is too large for its column's precision."""
        places = rows.numpy() - self.start
        for name, column in self.table.columns.items():
            value = values[name].to("cpu", DTYPES[column.precision])
            if not value.isfinite().all():
                raise UserError(f"{name} has values that {column.precision} can't hold; use bf16 or fp32")
            stored = value.view(torch.int16) if column.precision == "bf16" else value
            self.records[name][places] = stored.numpy()
        self.records[_FILLED][places] = 1

    def write(self, path: Path) -> None:
        """Write the whole shard or nothing."""
        with atomic_path(path) as temporary:
            self.records.tofile(temporary)


@dataclass
class RowReader:
    """Reads rows of a complete table; opens its files in each process as they are needed."""

    table: Table
    _open: dict[int, NDArray[Any]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table, "_open": {}}

    def read(self, rows: Int[Tensor, "b"]) -> dict[str, Tensor]:
        """Every column of these rows (b, *shape); MissingRowError if one was never written."""
        wanted, per_shard = rows.numpy(), self.table.rows_per_shard
        found = {
            name: np.empty((len(wanted), *one.shape), _STORED[one.precision])
            for name, one in self.table.columns.items()
        }
        for shard in np.unique(wanted // per_shard).tolist():
            places = np.flatnonzero(wanted // per_shard == shard)
            records, local = self._shard(shard), wanted[places] - shard * per_shard
            if not records[_FILLED][local].all():
                raise MissingRowError(f"row {wanted[places][records[_FILLED][local] == 0][0]} is empty")
            for name, values in found.items():
                values[places] = records[name][local]
        return {name: self._tensor(name, values) for name, values in found.items()}

    def _shard(self, shard: int) -> NDArray[Any]:
        if shard not in self._open:
            self._open[shard] = np.memmap(self.table.path(shard), self.table.dtype, mode="r")
        return self._open[shard]

    def _tensor(self, name: str, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.view(torch.bfloat16) if self.table.columns[name].precision == "bf16" else tensor


def size_in_words(num_bytes: int) -> str:
    """E.g. "1.9 GiB"."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"
