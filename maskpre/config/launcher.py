"""Sweeps whose jobs run elsewhere."""

import importlib.util
import os
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from maskpre.errors import UserError

_CHOICE = "hydra/launcher"
_PACKAGE = "hydra_plugins.hydra_submitit_launcher"


def uses_slurm(overrides: Sequence[str]) -> bool:
    """Whether a command line chooses configs/hydra/launcher/slurm.yaml."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return any(one.key_or_group == _CHOICE and one.value() == "slurm" for one in parsed)


def check_launcher(jobs: Sequence[DictConfig], *, multirun: bool) -> None:
    """Raise UserError if these configurations can't become the jobs of one SLURM array."""
    if not multirun:
        raise UserError("hydra/launcher=slurm submits the jobs of a sweep: add -m, also for a single one")
    if not _is_installed():
        raise UserError("hydra/launcher=slurm needs a package: pip install 'maskpre[slurm]'")
    for key in ("devices", "num_nodes"):
        counts = {str(cfg.trainer.get(key, 1)) for cfg in jobs if "trainer" in cfg}
        if len(counts) > 1:
            raise UserError(
                f"the jobs of one sweep are one SLURM array and must be of one size, but trainer.{key} is "
                f"{' and '.join(sorted(counts))}; start one sweep for each"
            )
        if not all(count.isdigit() for count in counts):
            raise UserError(
                f"hydra/launcher=slurm starts one task per device: trainer.{key} must be a number, "
                f"got {', '.join(counts)}"
            )


def in_launched_job() -> bool:
    """Whether this process is a job that the launcher has submitted."""
    return "SUBMITIT_EXECUTOR" in os.environ


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(_PACKAGE) is not None
    except ModuleNotFoundError:
        return False
