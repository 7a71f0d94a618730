"""What a run would find here: `python -m maskpre.doctor experiment=mae`."""

import sys
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from maskpre.config import command
from maskpre.diagnosis.base import Check, Finding
from maskpre.diagnosis.data import check_data
from maskpre.diagnosis.disk import check_disk
from maskpre.diagnosis.gpus import check_gpus
from maskpre.diagnosis.logins import check_logins
from maskpre.diagnosis.network import check_network
from maskpre.diagnosis.slurm import check_slurm
from maskpre.diagnosis.software import check_software

CHECKS: tuple[Check, ...] = (
    check_software,
    check_gpus,
    check_slurm,
    check_network,
    check_logins,
    check_disk,
    check_data,
)
_COLOURS = {"ok": "green", "note": "yellow", "error": "red"}


def examine(cfg: DictConfig) -> Iterator[Finding]:
    """What all checks find; one that breaks is a finding, too."""
    for check in CHECKS:
        try:
            yield from check(cfg)
        except Exception as error:
            yield Finding(check.__name__.removeprefix("check_"), f"{type(error).__name__}: {error}", "error")


def _table(findings: list[Finding]) -> Table:
    table: Any = Table("", "what", "found")
    for finding in findings:
        colour = _COLOURS[finding.level]
        table.add_row(f"[{colour}]{finding.level}[/]", finding.what, finding.found)
    return table


@command("train")
def main(cfg: DictConfig) -> None:
    """Show what a run would see on this machine and what is wrong with it; exit code 1 if anything is."""
    findings = list(examine(cfg))
    Console(highlight=False, soft_wrap=True).print(_table(findings))
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        print(f"{errors} error{'s' if errors > 1 else ''}: the run would fail here", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
