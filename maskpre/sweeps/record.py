"""What a run has left on disk so far."""

import csv
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from filelock import Timeout
from omegaconf import OmegaConf

from maskpre.data.files import locked
from maskpre.errors import UserError
from maskpre.run_folder import RunFolder
from maskpre.run_status import State

Verdict = State | Literal["stalled"]

# Speed is judged by the end of the log: the first steps compile and fill caches.
_LATEST = 20


@dataclass(frozen=True)
class RunRecord:
    """One run: its flattened configuration, the overrides it was started with, and its log.

    `verdict` is what it says of itself, or "stalled" if nothing comes from it any more; `message` says why.
    """

    path: Path
    config: Mapping[str, Any]
    overrides: Mapping[str, str]
    log: Sequence[Mapping[str, str]]
    verdict: Verdict
    message: str
    total_steps: int | None

    @property
    def step(self) -> int:
        """The last optimiser step that was logged."""
        return int(self.log[-1]["step"]) if self.log else 0

    def series(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) wherever the metric was logged."""
        return [(int(row["step"]), float(row[metric])) for row in self.log if row.get(metric)]

    def last(self, metric: str) -> float | None:
        """The metric's last value."""
        values = self.series(metric)
        return values[-1][1] if values else None

    @property
    def probes(self) -> list[str]:
        """Metrics that judge the encoder."""
        names = self.log[-1] if self.log else {}
        return [name for name in names if name.startswith(("probe/", "val/"))]

    @property
    def images_per_second(self) -> float | None:
        """Median of the latest logged speeds, over all ranks."""
        speeds = [value for _, value in self.series("time/images_per_second")[-_LATEST:]]
        return median(speeds) if speeds else None


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """Run folders among `paths` and below them; UserError if there is none."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"there is no folder {path}")
        configs = sorted(path.rglob("config.yaml"))
        found |= dict.fromkeys(
            config.parent for config in configs if (config.parent / "checkpoints").is_dir()
        )
    if not found:
        raise UserError(f"no run has been started in {', '.join(map(str, paths))}")
    return [RunFolder(path) for path in found]


def read_run(folder: RunFolder, *, patience: float) -> RunRecord:
    """Read a run's folder; `patience` are the seconds without a sign of life until it counts as stalled."""
    config: Any = OmegaConf.to_container(OmegaConf.load(folder.config))
    verdict, message = _judge(folder, patience)
    status = folder.status
    return RunRecord(
        path=folder.path,
        config=dict(_leaves(config, "")),
        overrides=dict(_overrides(folder)),
        log=_read_log(folder.path / "metrics.csv"),
        verdict=verdict,
        message=message,
        total_steps=None if status is None else status.total_steps,
    )


def _judge(folder: RunFolder, patience: float) -> tuple[Verdict, str]:
    status = folder.status
    if status is not None and status.state != "running":
        return status.state, status.message
    silent = time.time() - _last_sign(folder)
    if silent > patience:
        return "stalled", f"has written nothing for {silent / 60:.0f} minutes"
    if status is not None and status.host == socket.gethostname() and not _is_held(folder):
        return "stalled", f"its process is gone ({status.process()})"
    return "running", ""


def _last_sign(folder: RunFolder) -> float:
    signs = (folder.path / "metrics.csv", folder.path / "status.json", folder.last, folder.config)
    return max(sign.stat().st_mtime for sign in signs if sign.exists())


def _is_held(folder: RunFolder) -> bool:
    """Whether a process has locked the folder; runs wait long enough not to be disturbed by this look."""
    try:
        with locked(folder.lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _overrides(folder: RunFolder) -> Iterator[tuple[str, str]]:
    lines = folder.overrides.read_text().splitlines() if folder.overrides.exists() else []
    for line in lines:
        key, _, value = line.lstrip("+~").partition("=")
        yield key, value


def _read_log(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # The last line may be half-written at the moment.
    return [row for row in rows if row["step"].isdigit() and None not in row.values()]
