"""From overrides to a configuration."""

from collections.abc import Sequence
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

from maskpre.errors import UserError


def _find_configs() -> Path:
    """configs/ inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIG_DIR = _find_configs()


def is_group(loader: ConfigLoader, name: str) -> bool:
    """Whether `name` is a folder of alternatives."""
    return bool(loader.list_groups(name) or loader.get_group_options(name))


def tolerant(override: Override, loader: ConfigLoader) -> str:
    """The override as text, such that Hydra accepts it for any key: misspelt keys are reported later, at once.

    Overrides that choose from a group, delete, extend a list or concern Hydra itself stay as they are.
    """
    line = override.input_line
    assert line is not None
    if override.type not in (OverrideType.CHANGE, OverrideType.ADD) or override.is_hydra_override():
        return line
    if is_group(loader, override.key_or_group) and not isinstance(override.value(), dict):
        return line
    return "++" + line.removeprefix("+")


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """A configuration as the command line would compose it.

    Raises UserError with everything that is wrong with it.
    """
    try:
        with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            return hydra_compose(config_name, overrides=[tolerant(item, loader) for item in parsed])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error
