"""From overrides to a configuration."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose as hydra_compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from maskpre.config.library import Library, hydra_at_configs, loaded_files
from maskpre.config.origin import Origins
from maskpre.config.validate import find_problems
from maskpre.errors import ConfigError, Problem, UserError
from maskpre.nearest import did_you_mean


def _chooses(override: Override, library: Library) -> bool:
    """Whether an override chooses from a group instead of setting a value."""
    return bool(library.options(override.key_or_group)) and not isinstance(override.value(), dict)


def _wrong_choice(override: Override, library: Library) -> Problem | None:
    """What is wrong with a choice from a group, if the override is one and anything is wrong with it."""
    is_ours = _chooses(override, library) and not override.is_hydra_override()
    if not is_ours or override.is_sweep_override():
        return None
    group, value = override.key_or_group, override.value()
    options = library.options(group)
    for name in value if isinstance(value, list) else [value]:
        if name is not None and str(name) not in options:
            hint = did_you_mean(str(name), options)
            return Problem(
                group,
                f"there is no configs/{group}/{name}.yaml; choose from {', '.join(options)}{hint}",
                f"set on the command line: {override.input_line}",
            )
    return None


def _tolerant(override: Override, library: Library) -> str:
    """The override as text such that Hydra takes any key: misspelt ones are reported later, all at once.

    Overrides that choose from a group, delete, extend a list or concern Hydra itself stay as they are.
    """
    line = str(override.input_line)
    plain = override.type in (OverrideType.CHANGE, OverrideType.ADD)
    if not plain or _chooses(override, library) or override.is_hydra_override():
        return line
    return "++" + line.removeprefix("+")


def usable(overrides: Sequence[str], library: Library) -> tuple[list[str], list[Override], list[Problem]]:
    """The overrides that Hydra can work with: as text for it, as given, and what is wrong with the others."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    faults = [(item, _wrong_choice(item, library)) for item in parsed]
    kept = [item for item, fault in faults if fault is None]
    return [_tolerant(item, library) for item in kept], kept, [fault for _, fault in faults if fault]


def compose(
    overrides: Sequence[str] = (), config_name: str = "train", *, folders: Sequence[Path] = ()
) -> DictConfig:
    """A valid configuration, as the command line composes it; `folders` hold the user's own files.

    Raises ConfigError with everything that is wrong with it: unknown choices, misspelt, missing, mistyped
    and unresolvable entries, parts that can't go together. Each comes with its dotted path, what would be
    right, and where it was set. What Hydra itself can't read is a UserError with Hydra's message.
    """
    library = Library(folders)
    with hydra_at_configs():
        try:
            lines, kept, wrong = usable(overrides, library)
            cfg = hydra_compose(config_name, overrides=[*library.search_path, *lines])
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(str(error)) from error
        found = find_problems(cfg, config_name)
        if wrong or found:
            settings = [override for override in kept if not _chooses(override, library)]
            origins = Origins(settings, loaded_files(config_name, lines, library))
            located = [replace(problem, origin=origins.where(problem.path)) for problem in found]
            raise ConfigError([*wrong, *located])
    return cfg
