"""Weights & Biases, which must never be the reason that a run stops."""

import logging
import os
from typing import Literal
from uuid import uuid4

import wandb
from lightning.pytorch.loggers import WandbLogger

from maskpre.run_folder import RunFolder, is_first_rank

log = logging.getLogger(__name__)


def _mode(wanted: Literal["auto", "online", "offline"]) -> Literal["online", "offline"]:
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE") == "offline" or wandb.api.api_key is None:
        log.warning("wandb: no login found, logging offline; upload later with `wandb sync`")
        return "offline"
    return "online"


def _run_id(folder: RunFolder) -> str:
    """The run's id, chosen once per folder, so that a resumed run goes on in the same wandb run."""
    path = folder.path / "wandb_id"
    if not path.exists() and is_first_rank():
        path.write_text(uuid4().hex[:8])
    return path.read_text() if path.exists() else ""


def wandb_logger(
    *,
    folder: RunFolder,
    project: str = "maskpre",
    entity: str | None = None,
    name: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
) -> WandbLogger:
    """A wandb run in the run's folder; "auto" logs online if there is a login.

    The x-axis is the number of samples seen, which only grows: a run resumed from an older step repeats some.
    """
    logger = WandbLogger(
        project=project,
        entity=entity,
        name=name or folder.path.name,
        save_dir=folder.path,
        id=_run_id(folder),
        resume="allow",
        offline=_mode(mode) == "offline",
    )
    if is_first_rank():
        logger.experiment.define_metric("*", step_metric="samples")
    return logger
