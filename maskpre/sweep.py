"""Many runs in one table, while they run and after: `python -m maskpre.sweep runs/mae runs/colormae`."""

import argparse
import sys
from pathlib import Path

from maskpre.errors import UserError
from maskpre.sweeps.plot import plot_losses
from maskpre.sweeps.record import RunRecord, find_runs, read_run
from maskpre.sweeps.table import make_table

_EPILOG = (
    "status: running; finished; failed (why is told below the table); stopped by a signal; requeued, waiting "
    "for SLURM to start it again; stalled: the process is gone, or silent for too long."
)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m maskpre.sweep",
        description="Compare runs by what they have left on disk.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold some"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as comma-separated values")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the losses (png, pdf, svg)")
    parser.add_argument(
        "--patience",
        type=float,
        default=30,
        metavar="MINUTES",
        help="silence after which a run is stalled (30)",
    )
    return parser.parse_args(arguments)


def _report(options: argparse.Namespace) -> None:
    runs: list[RunRecord] = [
        read_run(folder, patience=60 * options.patience) for folder in find_runs(options.runs)
    ]
    table = make_table(runs)
    print(table.markdown(), end="")
    for run, row in zip(runs, table.rows, strict=True):
        if run.message:
            print(f"\n{row[0]} ({run.verdict}): {run.message}")
    for path, text in ((options.csv, table.csv()), (options.markdown, table.markdown())):
        if path is not None:
            path.write_text(text, encoding="utf-8")
    if options.plot is not None:
        plot_losses(runs, options.plot)


def main(arguments: list[str]) -> int:
    """Print the table; returns the exit status."""
    try:
        _report(_parse(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
