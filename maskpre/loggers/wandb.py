"""Weights & Biases, which must never be the reason that a run stops."""

import logging
import os
import socket
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies
from uuid import uuid4

import wandb
from lightning.pytorch.loggers import WandbLogger

from maskpre.errors import UserError
from maskpre.run_folder import RunFolder, is_first_rank

log = logging.getLogger(__name__)


def _why_offline(patience: float) -> str | None:
    """What keeps a run from logging online; None if nothing is known to."""
    if os.environ.get("WANDB_MODE") == "offline":
        return "WANDB_MODE is offline"
    if wandb.api.api_key is None:
        return "no login was found"
    url = urlsplit(wandb.setup().settings.base_url)
    if getproxies().get(url.scheme) is not None:
        return None
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=patience).close()
    except OSError as error:
        return f"{url.netloc} does not answer ({error})"
    return None


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
    patience: float = 60.0,
) -> WandbLogger:
    """A wandb run in the run's folder.

    "auto" logs online if there is a login and the server answers within `patience` seconds, else offline.
    "online" raises UserError if it doesn't answer. The x-axis is the number of samples seen, which only
    grows: a run resumed from an older step repeats some.
    """

    def start(*, offline: bool) -> WandbLogger:
        logger = WandbLogger(
            project=project,
            entity=entity,
            name=name or folder.path.name,
            save_dir=folder.path,
            id=_run_id(folder),
            resume="allow",
            offline=offline,
            # What Lightning sets in the environment is not read any more once wandb has been asked anything.
            mode="offline" if offline else "online",
            settings=wandb.Settings(init_timeout=patience),
        )
        if is_first_rank():
            logger.experiment.define_metric("*", step_metric="samples")
        return logger

    if mode == "offline":
        return start(offline=True)
    reason = _why_offline(patience)
    try:
        if reason is None:
            return start(offline=False)
    except wandb.Error as error:
        reason = str(error)
        wandb.teardown()
    if mode == "online":
        raise UserError(
            f"logger.wandb.mode is online, but {reason}; with mode=auto the run would log offline"
        )
    log.warning("wandb: %s; logging offline, to be uploaded later with `wandb sync`", reason)
    return start(offline=True)
