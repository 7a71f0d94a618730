"""The losses of many runs in one picture."""

from collections.abc import Sequence
from pathlib import Path

from maskpre.errors import UserError
from maskpre.sweeps.columns import differences
from maskpre.sweeps.record import RunRecord
from maskpre.sweeps.table import names


def plot_losses(runs: Sequence[RunRecord], path: Path) -> None:
    """Draw every run's training loss over its steps; the file's ending says the format.

    UserError if matplotlib is missing or the format unknown.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError("a plot needs a package: pip install 'maskpre[plot]'") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="training loss", yscale="log")
    for run, label in zip(runs, _labels(runs), strict=True):
        series = run.series("train/loss")
        axes.plot([step for step, _ in series], [loss for _, loss in series], label=label)
    axes.legend(fontsize="small")
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {error}") from error


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    columns = differences(runs)
    if not columns:
        return names(runs)
    return [
        ", ".join(f"{key}={column[number]}" for key, column in columns.items()) for number in range(len(runs))
    ]
