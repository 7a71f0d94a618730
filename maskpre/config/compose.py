"""From overrides to a configuration."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from maskpre.config.origin import Origins, loaded_files
from maskpre.config.validate import find_problems
from maskpre.errors import ConfigError, Problem, UserError
from maskpre.nearest import did_you_mean


def _find_configs() -> Path:
    """configs/ inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIG_DIR = _find_configs()


def _options(loader: ConfigLoader, group: str) -> list[str]:
    """All alternatives of a group, those in sub-folders as "folder/name"."""
    inner = loader.list_groups(group)
    below = [f"{folder}/{name}" for folder in inner for name in _options(loader, f"{group}/{folder}")]
    here = [name for name in loader.get_group_options(group) if not name.startswith("_")]
    return here + below


def _is_choice(override: Override, loader: ConfigLoader) -> bool:
    """Whether an override chooses alternatives of a group instead of setting a value."""
    return bool(_options(loader, override.key_or_group)) and not isinstance(override.value(), dict)


def _wrong_choice(override: Override, loader: ConfigLoader) -> Problem | None:
    """What is wrong with a choice from a group, if anything."""
    group, value = override.key_or_group, override.value()
    options = _options(loader, group)
    for name in value if isinstance(value, list) else [value]:
        if name is not None and str(name).removeprefix("/") not in options:
            hint = did_you_mean(str(name), options)
            return Problem(
                group,
                f"there is no configs/{group}/{name}.yaml; choose from {', '.join(options)}{hint}",
                f"set on the command line: {override.input_line}",
            )
    return None


def tolerant(override: Override, loader: ConfigLoader) -> str:
    """The override as text such that Hydra takes any key: misspelt ones are reported later, all at once.

    Overrides that choose from a group, delete, extend a list or concern Hydra itself stay as they are.
    """
    line = str(override.input_line)
    plain = override.type in (OverrideType.CHANGE, OverrideType.ADD)
    if not plain or override.is_hydra_override() or _is_choice(override, loader):
        return line
    return "++" + line.removeprefix("+")


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """A valid configuration, as the command line composes it.

    Raises ConfigError with everything that is wrong with it: unknown choices, misspelt, missing, mistyped
    and unresolvable entries, parts that can't go together. Each comes with its dotted path, what would be
    right, and where it was set.
    """
    try:
        with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base="1.3"):
            return _compose(list(overrides), config_name, GlobalHydra.instance().config_loader())
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error


def _compose(overrides: list[str], config_name: str, loader: ConfigLoader) -> DictConfig:
    parsed = OverridesParser.create().parse_overrides(overrides)
    picks = [item for item in parsed if item.type is OverrideType.CHANGE and _is_choice(item, loader)]
    wrong = {str(item.input_line): fault for item in picks if (fault := _wrong_choice(item, loader))}
    kept = [item for item in parsed if item.input_line not in wrong]
    lines = [tolerant(item, loader) for item in kept]
    cfg = hydra_compose(config_name, overrides=lines)
    found = find_problems(cfg, config_name)
    if wrong or found:
        origins = Origins(kept, loaded_files(config_name, lines, loader))
        located = [replace(problem, origin=origins.where(problem.path)) for problem in found]
        raise ConfigError([*wrong.values(), *located])
    return cfg
