"""Finding everything that is wrong with a configuration, before any data are touched."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maskpre.config.conflicts import find_conflicts
from maskpre.config.schema import SCHEMAS
from maskpre.config.target import arguments_of
from maskpre.config.walk import Walker
from maskpre.errors import ConfigError, Problem


def _refers_to(cfg: DictConfig, path: str) -> str | None:
    """The dotted path that the value at `path` refers to, if it is a plain reference."""
    value: Any = OmegaConf.to_container(cfg, resolve=False)
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, dict) else None
    reference = re.fullmatch(r"\$\{([\w.]+)\}", str(value))
    return reference[1] if reference else None


def _parents(path: str) -> list[str]:
    """The path and all that it lies below."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def find_problems(cfg: DictConfig, config_name: str = "train") -> list[Problem]:
    """All misspelt, missing, mistyped and unresolvable entries, and parts that can't go together.

    Parts whose text is wrong are not tried out.
    """
    schema = SCHEMAS[config_name]
    takes = arguments_of(schema)
    found = list(Walker(cfg).arguments(cfg, "", "the configuration", takes, {}))
    wrong = {part for problem in found for part in _parents(problem.path)}
    found = [problem for problem in found if _refers_to(cfg, problem.path) not in wrong]
    found += find_conflicts(cfg, broken=wrong)
    return list(dict.fromkeys(found))


def validate(cfg: DictConfig, config_name: str = "train") -> None:
    """Raise ConfigError naming everything that is wrong with a composed configuration."""
    problems = find_problems(cfg, config_name)
    if problems:
        raise ConfigError(problems)
