"""Whether the run's folder can be written, and has room for its checkpoints."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from maskpre.diagnosis.base import Finding
from maskpre.planning.measure import count_weights, plan_model
from maskpre.planning.plan import checkpoint_bytes


def _existing(path: Path) -> Path:
    """The folder itself, or the closest one above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def check_disk(cfg: DictConfig) -> Iterator[Finding]:
    """Free space against the last checkpoint, the best ones, and one that is being written."""
    folder = _existing(Path(cfg.run_dir or cfg.runs_dir).absolute())
    if not os.access(folder, os.W_OK):
        yield Finding("run folder", f"{folder} can't be written", "error")
        return
    best = cfg.callbacks.get("best")
    kept = 2 + (0 if best is None else best.top_k)
    each = checkpoint_bytes(cfg, count_weights(plan_model(cfg)))
    free = shutil.disk_usage(folder).free
    yield Finding("checkpoint", f"{each / 1e6:,.1f} MB each, {kept} at once")
    text = f"{free / 1e9:,.1f} GB free in {folder}, {kept * each / 1e9:,.2f} GB needed"
    yield Finding("disk", text, "ok" if free > kept * each else "error")
    memory = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else None
    if memory is not None and memory < 1e9 and cfg.data.num_workers != 0:
        text = f"{memory / 1e6:,.0f} MB free to hand over batches; give the container more"
        yield Finding("/dev/shm", text, "note")
