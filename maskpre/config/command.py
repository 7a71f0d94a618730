"""Commands that run a function on a configuration."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from maskpre.config.compose import CONFIG_DIR
from maskpre.errors import UserError

Main = Callable[[DictConfig], None]

# Run folders are the command's own business: Hydra writes nothing but the text of the last sweep.
_QUIET = (
    "hydra.run.dir=.",
    "hydra.sweep.dir=${runs_dir}",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=stdout",
)


def _stop(error: UserError, code: int) -> NoReturn:
    if os.environ.get("MASKPRE_DEBUG") == "1":
        raise error
    print(error, file=sys.stderr)
    sys.exit(code)


def _with_defaults(argv: list[str], overrides: list[str]) -> list[str]:
    """Put overrides before the user's; Hydra's parser wants all of them in one place."""
    chosen = get_args_parser().parse_intermixed_args(argv).overrides
    flags = [argument for argument in argv if argument not in chosen]
    return [*flags, "--", *overrides, *chosen]


def command(config_name: str) -> Callable[[Main], Callable[[], None]]:
    """Make a function of a configuration a command line of Hydra's, composed from configs/`config_name`.yaml.

    Mistakes that are the user's (`UserError`) are printed without stack trace; MASKPRE_DEBUG=1 shows it. The
    exit code is 2 for a wrong configuration, 1 for what goes wrong later.
    """

    def decorate(main: Main) -> Callable[[], None]:
        def job(cfg: DictConfig) -> None:
            try:
                main(cfg)
            except UserError as error:
                _stop(error, 1)

        @wraps(main)
        def entry() -> None:
            sys.argv[1:] = _with_defaults(sys.argv[1:], [f"hydra.job.name={config_name}", *_QUIET])
            hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(job)()

        return entry

    return decorate
