"""What tells the runs of a sweep apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from maskpre.sweeps.record import RunRecord

# Where a run is written to and how it was continued is no property of the experiment.
_BESIDE_THE_POINT = frozenset({"name", "runs_dir", "run_dir", "resume"})
MISSING = "-"

Column = tuple[str, ...]


def differences(runs: Sequence[RunRecord]) -> dict[str, Column]:
    """Columns of values by key, one per run, for the keys in which the runs differ.

    What the command lines chose and set comes first. A key of the configuration is left out if it has the
    values of an earlier column, to which it refers, or if it follows from a choice (such as experiment=mae).
    """
    keys = dict.fromkeys(key for run in runs for key in run.overrides if key not in _BESIDE_THE_POINT)
    choices = {key for key in keys if not any(key in run.config for run in runs)}
    kept = {key: _override_column(key, runs, key in choices) for key in keys}
    kept = {key: column for key, column in kept.items() if len(set(column)) > 1}
    for key in _config_keys(runs):
        column = tuple(_text(run.config, key) for run in runs)
        follows = any(_follows(column, kept[name]) for name in choices & kept.keys())
        if len(set(column)) > 1 and column not in kept.values() and not follows:
            kept[key] = column
    return kept


def _override_column(key: str, runs: Sequence[RunRecord], is_choice: bool) -> Column:
    if is_choice:
        return tuple(run.overrides.get(key, MISSING) for run in runs)
    return tuple(_text(run.config, key) for run in runs)


def _config_keys(runs: Sequence[RunRecord]) -> list[str]:
    """All keys, those of the upper levels first."""
    keys = {key for run in runs for key in run.config if key.partition(".")[0] not in _BESIDE_THE_POINT}
    return sorted(keys, key=lambda key: (key.count("."), key))


def _follows(column: Column, known: Column) -> bool:
    """Whether equal values in `known` always come with equal values in `column`."""
    return len(set(zip(known, column, strict=True))) == len(set(known))


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key, MISSING)
    return "null" if value is None else str(value)
