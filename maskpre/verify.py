"""Replay golden cases of official implementations.

Usage: python -m maskpre.verify [PATH...]

Exit status: 0 all within tolerance, 1 some are not, 2 a case can't be built or read.
"""

import argparse
import sys
import traceback
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


def verify(folder: Path) -> Verdict:
    """Replay the case in a folder and compare."""
    case = read_case(folder)
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


def _parse(arguments: list[str]) -> list[Path]:
    parser = argparse.ArgumentParser(prog="python -m maskpre.verify", description=__doc__)
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="folders of cases, searched below"
    )
    paths: list[Path] = parser.parse_args(arguments).paths
    if paths:
        return paths
    if not SHIPPED.is_dir():
        raise UserError(f"no cases are shipped with an installed package ({SHIPPED} is missing); give a PATH")
    return [SHIPPED]


def main(arguments: list[str]) -> int:
    """Print a table of errors; returns the exit status."""
    verdicts, failures = [], []
    try:
        folders = find_cases(_parse(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for folder in folders:
        try:
            verdicts.append(verify(folder))
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
