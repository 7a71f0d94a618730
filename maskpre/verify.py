"""Replay golden cases of official implementations.

Usage: python -m maskpre.verify [PATH...] [--override KEY=VALUE...]

Overrides choose another way to compute the same: PATH/spark --override encoder.execution=mask

Exit status: 0 all within tolerance, 1 some are not, 2 a case can't be built or read.
"""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from maskpre.errors import UserError
from maskpre.golden.case import find_cases, read_case
from maskpre.golden.compare import Deviation, Verdict, compare
from maskpre.golden.kinds import replay

WIDTH = 160
SHIPPED = Path(__file__).resolve().parent.parent / "tests" / "golden"


def verify(folder: Path, overrides: Sequence[str] = ()) -> Verdict:
    """Replay the case in a folder and compare; `overrides` are for the experiment it is built from."""
    case = read_case(folder, overrides)
    return compare(case, replay(case))


def _cell(deviation: Deviation) -> str:
    return f"{deviation.error:.1e} {deviation.what}" if deviation.what else "-"


def _table(verdicts: list[Verdict]) -> Table:
    table = Table()
    for title in ("case", "loss error", "worst tensor error", "worst gradient error", "ok"):
        table.add_column(title, overflow="fold")
    for verdict in verdicts:
        row = (_cell(verdict.loss), _cell(verdict.tensor), _cell(verdict.gradient))
        table.add_row(verdict.case, *row, "yes" if verdict.ok else "NO")
    return table


def _parse(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """The folders to search, and the overrides."""
    parser = argparse.ArgumentParser(
        prog="python -m maskpre.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="folders of cases, searched below"
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for the experiments of the cases",
    )
    given = parser.parse_args(arguments)
    if given.paths:
        return given.paths, given.override
    if not SHIPPED.is_dir():
        raise UserError(f"no cases are shipped with an installed package ({SHIPPED} is missing); give a PATH")
    return [SHIPPED], given.override


def main(arguments: list[str]) -> int:
    """Print a table of errors; returns the exit status."""
    verdicts, failures = [], []
    try:
        paths, overrides = _parse(arguments)
        folders = find_cases(paths)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for folder in folders:
        try:
            verdicts.append(verify(folder, overrides))
        except UserError as error:
            failures.append(str(error))
        except Exception:
            # A fault of this package: told in full, but the other cases still count.
            failures.append(f"{folder}: {traceback.format_exc()}")
    # A file or pipe tells no width, and rich would assume 80 columns.
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(_table(verdicts))
    for verdict in verdicts:
        for line in verdict.wrong:
            console.print(f"{verdict.case}: {line}", markup=False)
    for failure in failures:
        print(failure, file=sys.stderr)
    if failures:
        return 2
    return 0 if all(verdict.ok for verdict in verdicts) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
