"""One table of many runs."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskpre.sweeps.columns import MISSING, differences
from maskpre.sweeps.record import RunRecord


@dataclass(frozen=True)
class Table:
    """Titles and rows of text."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def csv(self) -> str:
        """Comma-separated, with a line of titles."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.titles, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """A Markdown table, aligned for reading as it is."""
        cells = [[cell.replace("|", "\\|") for cell in row] for row in (self.titles, *self.rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
        rule = ["-" * width for width in widths]
        return "".join(f"| {' | '.join(row)} |\n" for row in (padded[0], rule, *padded[1:]))


def names(runs: Sequence[RunRecord]) -> list[str]:
    """The runs' folders, from where their paths part."""
    if len(runs) == 1:
        return [runs[0].path.name]
    common = Path(os.path.commonpath([run.path for run in runs]))
    return [run.path.relative_to(common).as_posix() for run in runs]


def make_table(runs: Sequence[RunRecord]) -> Table:
    """Where the runs differ, how far they are, and what came out so far."""
    columns = {"run": tuple(names(runs)), **differences(runs)}
    columns["status"] = tuple(run.verdict for run in runs)
    columns["step"] = tuple(_step(run) for run in runs)
    columns["loss"] = tuple(_number(run.last("train/loss"), ".4f") for run in runs)
    for probe in dict.fromkeys(name for run in runs for name in run.probes):
        columns[probe] = tuple(_number(run.last(probe), ".4f") for run in runs)
    columns["images/s"] = tuple(_number(run.images_per_second, ".0f") for run in runs)
    return Table(titles=tuple(columns), rows=tuple(zip(*columns.values(), strict=True)))


def _step(run: RunRecord) -> str:
    return str(run.step) if run.total_steps is None else f"{run.step}/{run.total_steps}"


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)
