"""Whether the data are there, and how fast one process reads them."""

import time
from collections.abc import Iterator
from itertools import islice

from hydra.utils import instantiate
from omegaconf import DictConfig

from maskpre.data.workers import available_cores
from maskpre.diagnosis.base import Finding
from maskpre.errors import UserError

_SECONDS = 5.0
_BATCH = 16
_STEPS = 64


def check_data(cfg: DictConfig) -> Iterator[Finding]:
    """Open both splits and load training batches for at most five seconds, in this process."""
    yield Finding("CPU cores", str(available_cores()))
    try:
        data = instantiate(cfg.data, num_workers=0)
        data.prepare_data()
        yield Finding("training data", f"{data.source('train').describe()}")
        labels = f"{data.num_classes} classes" if data.has_labels else "no labels or no val split: no probe"
        yield Finding("val split", labels, "ok" if data.has_labels else "note")
        batch = min(_BATCH, data.batch_size)
        loader = data.train_loader(num_steps=_STEPS, batch_size=batch)
        start, count = time.monotonic(), 0
        for _ in islice(loader, _STEPS):
            count += batch
            if time.monotonic() - start > _SECONDS:
                break
        speed = count / (time.monotonic() - start)
    except (UserError, OSError, NotImplementedError) as error:
        yield Finding("training data", str(error), "error")
        return
    yield Finding(
        "loading", f"{speed:,.0f} samples/s in one process, {data.skipped.total} unreadable of {count}"
    )
