"""The configuration files that can be chosen from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.types import RunMode


def _find_configs() -> Path:
    """configs/ inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIG_DIR = _find_configs()


@dataclass(frozen=True)
class Library:
    """Groups of alternatives and the files behind them: configs/, and `folders` of the user's own."""

    loader: ConfigLoader
    config_name: str
    folders: Sequence[Path]

    @property
    def search_path(self) -> list[str]:
        """The override that makes Hydra look into the user's folders too."""
        inside = ",".join(f"'file://{folder.absolute()}'" for folder in self.folders)
        return [f"hydra.searchpath=[{inside}]"] if self.folders else []

    def options(self, group: str) -> list[str]:
        """All alternatives of a group, those in sub-folders as "folder/name"; none if it is no group."""
        here = self.loader.get_group_options(group, ObjectType.CONFIG, self.config_name, self.search_path)
        inner = set(self.loader.list_groups(group))
        inner |= {path.name for root in self.folders for path in (root / group).glob("*/")}
        below = [f"{folder}/{name}" for folder in sorted(inner) for name in self.options(f"{group}/{folder}")]
        return [name for name in here if not name.startswith("_")] + below

    def groups(self) -> list[str]:
        """All groups at the top."""
        own = {path.name for root in self.folders for path in root.glob("*/")}
        return sorted(own.union(self.loader.list_groups("")) - {"hydra"})

    def find(self, name: str) -> Path | None:
        """The file of a configuration named as in a defaults list."""
        found = (folder / f"{name}.yaml" for folder in (CONFIG_DIR, *self.folders))
        return next((path for path in found if path.is_file()), None)

    def loaded_files(self, overrides: Sequence[str]) -> list[tuple[Path, str]]:
        """The files that Hydra's defaults lists name, in order, with the dotted path each is placed at."""
        lines = [*self.search_path, *overrides]
        listed: list[ResultDefault] = self.loader.compute_defaults_list(
            self.config_name, lines, RunMode.RUN
        ).defaults
        found = [(self.find(str(one.config_path)), one.package or "") for one in listed]
        return [(path, package.replace("_global_", "")) for path, package in found if path is not None]


@contextmanager
def open_library(config_name: str, folders: Sequence[Path] = ()) -> Iterator[Library]:
    """Hydra, initialised with configs/, and its view of the files."""
    with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base="1.3"):
        yield Library(GlobalHydra.instance().config_loader(), config_name, folders)
