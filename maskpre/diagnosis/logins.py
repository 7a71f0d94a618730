"""Whether wandb would log online."""

import os
from collections.abc import Iterator

import wandb
from omegaconf import DictConfig

from maskpre.diagnosis.base import Finding


def check_logins(cfg: DictConfig) -> Iterator[Finding]:
    """The login that a run with wandb would use; an offline run is uploaded later."""
    entry = cfg.logger.get("wandb")
    if entry is None:
        yield Finding("wandb", "not used (logger=wandb)")
        return
    mode = os.environ.get("WANDB_MODE", entry.get("mode", "auto"))
    if mode == "offline":
        yield Finding("wandb", "offline, as asked")
    elif wandb.api.api_key is not None:
        yield Finding("wandb", "logged in")
    else:
        online = entry.get("mode") == "online"
        missing = "no login: run `wandb login`" + ("" if online else ", or log offline")
        yield Finding(
            "wandb", missing if online else f"{missing}, or log offline", "error" if online else "note"
        )
