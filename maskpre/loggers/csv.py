"""A log of numbers that survives interruptions."""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from maskpre.errors import UserError
from maskpre.run_folder import RunFolder


class AppendingCSVLogger(Logger):
    """One row per logged step in `metrics.csv` of the run's folder.

    A resumed run goes on in the same file; rows of steps it repeats are dropped, and a last one that was cut
    off. A new metric adds a column. Raises UserError if the file can't be written.
    """

    def __init__(self, *, folder: RunFolder) -> None:
        super().__init__()
        self.path = folder.path / "metrics.csv"
        self._fields: list[str] = []
        self._rows: list[dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """Runs are told apart by their folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run's folder holds the configuration already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row, or complete the last one if it is of the same step."""
        try:
            self._log({"step": step, **metrics}, step)
        except OSError as error:
            self.path.with_suffix(".partial").unlink(missing_ok=True)
            raise UserError(f"{self.path} can't be written: {error.strerror}") from error

    def _log(self, row: dict[str, Any], step: int | None) -> None:
        if self._rows is None:
            self._rows = [r for r in self._read() if step is None or int(r["step"]) < step]
            self._fields = list(self._rows[0]) if self._rows else []
            self._rewrite_with(row)
        elif set(row) - set(self._fields) or (self._rows and self._rows[-1]["step"] == step):
            self._rewrite_with(row)
        else:
            self._rows.append(row)
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._fields).writerow(row)

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        return list(csv.DictReader(whole.decode().splitlines()))

    def _rewrite_with(self, row: dict[str, Any]) -> None:
        assert self._rows is not None
        if self._rows and self._rows[-1]["step"] == row["step"]:
            self._rows[-1] = {**self._rows[-1], **row}
        else:
            self._rows.append(row)
        self._fields += [name for name in row if name not in self._fields]
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._fields)
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(partial, self.path)
