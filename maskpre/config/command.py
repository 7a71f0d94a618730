"""Commands that run a function on a configuration."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from maskpre.config.compose import compose, usable
from maskpre.config.conflicts import check_machine
from maskpre.config.help import help_text
from maskpre.config.launcher import check_launcher, in_launched_job, uses_slurm
from maskpre.config.library import CONFIG_DIR, Library
from maskpre.errors import ConfigError, Problem, UserError, full_disks_named
from maskpre.ops.heap import keep_freed_memory

Main = Callable[[DictConfig], None]

# Run folders are the command's own business: Hydra writes nothing but the text of the last sweep.
_QUIET = (
    "hydra.run.dir=.",
    "hydra.sweep.dir=${oc.select:runs_dir,runs}",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=stdout",
)


# As shells tell of a command that SIGINT ended.
_INTERRUPTED = 130


def _stop(error: UserError, code: int) -> NoReturn:
    if os.environ.get("MASKPRE_DEBUG") == "1":
        raise error
    print(error, file=sys.stderr)
    sys.exit(code)


def _jobs(overrides: list[str], *, multirun: bool) -> list[list[str]]:
    """The overrides of every job; a sweep is spread out as Hydra's own sweeper does."""
    if not multirun:
        return [overrides]
    return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]


def _check(args: Namespace, config_name: str, folders: list[Path]) -> UserError | None:
    """What is wrong with the jobs of a command line, all of them together."""
    problems: dict[Problem, None] = {}
    composed: list[DictConfig] = []
    try:
        for job in _jobs(args.overrides, multirun=args.multirun):
            try:
                composed.append(compose(job, config_name, folders=folders))
            except ConfigError as error:
                problems |= dict.fromkeys(error.problems)
        if not problems and args.cfg is None and uses_slurm(args.overrides):
            check_launcher(composed, multirun=args.multirun)
    except HydraException as error:
        return UserError(str(error))
    except UserError as error:
        return error
    return ConfigError(list(problems)) if problems else None


def _hydra_arguments(argv: list[str], args: Namespace, config_name: str, folders: list[Path]) -> list[str]:
    """Arguments for Hydra: its flags, our settings, and the user's overrides, which win, in one place."""
    library = Library(folders)
    lines, _, _ = usable(args.overrides, library)
    ours = [f"hydra.job.name={config_name}", *_QUIET, *library.search_path]
    used = (*args.overrides, "--config-dir", args.config_dir, "--")
    flags = [argument for argument in argv if argument not in used]
    return [*flags, "--", *ours, *lines]


def _job(main: Main, cfg: DictConfig) -> None:
    """One job of a command line."""
    keep_freed_memory()
    try:
        check_machine(cfg)
        with full_disks_named():
            main(cfg)
    except UserError as error:
        if not in_launched_job():
            _stop(error, 1)
        # Recorded as the job's result: without one the command that waits for it would wait for ever.
        print(error, file=sys.stderr)
        raise
    except SystemExit as stop:
        if not in_launched_job():
            raise
        raise UserError(f"a job was stopped (exit code {stop.code})") from None


@contextmanager
def _errors_passed_on(wanted: bool) -> Iterator[None]:
    """Let Hydra raise the error of a job that ran elsewhere instead of printing its stack trace."""
    if wanted:
        os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if wanted:
            del os.environ["HYDRA_FULL_ERROR"]


def _run(main: Main, config_name: str) -> None:
    """Do what the command line asks for."""
    args = get_args_parser().parse_intermixed_args(sys.argv[1:])
    folders = [Path(args.config_dir)] if args.config_dir else []
    if args.help:
        print(help_text(config_name, main.__doc__ or "", folders))
        return
    asks_about_hydra = args.hydra_help or args.info or args.shell_completion
    wrong = None if asks_about_hydra else _check(args, config_name, folders)
    # A configuration that can be composed is shown even if it is wrong.
    if wrong is not None and (args.cfg is None or not isinstance(wrong, ConfigError)):
        _stop(wrong, 2)

    sys.argv[1:] = _hydra_arguments(sys.argv[1:], args, config_name, folders)
    try:
        with _errors_passed_on(uses_slurm(args.overrides)):
            entry = hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")
            entry(partial(_job, main))()
    except UserError as error:
        _stop(error, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    if wrong is not None:
        _stop(wrong, 2)


def command(config_name: str) -> Callable[[Main], Callable[[], None]]:
    """Make a function of a configuration a command line of Hydra's, composed from configs/`config_name`.yaml.

    Every job's configuration is checked before the first job starts. Mistakes that are the user's
    (`UserError`) are printed without stack trace, which MASKPRE_DEBUG=1 shows; any other error keeps it. The
    exit code is 2 for a wrong configuration, 1 for what goes wrong later, 130 after Ctrl-C.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @wraps(main)
        def entry() -> None:
            _run(main, config_name)

        return entry

    return decorate
