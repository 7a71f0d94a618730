"""The configuration files that can be chosen from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode


def _find_configs() -> Path:
    """configs/ inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIG_DIR = _find_configs()


@dataclass(frozen=True)
class Library:
    """Groups of alternatives and the files behind them: configs/, and `folders` of the user's own.

    A group is a folder; files whose name starts with "_" are no alternatives but parts of others.
    """

    folders: Sequence[Path] = ()

    @property
    def roots(self) -> list[Path]:
        """All folders that hold groups."""
        return [CONFIG_DIR, *self.folders]

    @property
    def search_path(self) -> list[str]:
        """The override that makes Hydra look into the user's folders too."""
        inside = ",".join(f"'file://{folder.absolute()}'" for folder in self.folders)
        return [f"hydra.searchpath=[{inside}]"] if self.folders else []

    def options(self, group: str) -> list[str]:
        """All alternatives of a group, those in sub-folders as "folder/name"; none if it is no group."""
        files = [
            path.relative_to(root / group).with_suffix("")
            for root in self.roots
            for path in (root / group).glob("**/*.yaml")
        ]
        return sorted({file.as_posix() for file in files if not file.name.startswith("_")})

    def find(self, name: str) -> Path | None:
        """The file of a configuration named as in a defaults list."""
        found = (root / f"{name}.yaml" for root in self.roots)
        return next((path for path in found if path.is_file()), None)


@contextmanager
def hydra_at_configs() -> Iterator[None]:
    """Hydra, initialised with configs/; inside another such block too."""
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def loaded_files(config_name: str, overrides: Sequence[str], library: Library) -> list[tuple[Path, str]]:
    """The files that Hydra's defaults lists name, in order, with the dotted path each is placed at.

    Hydra must be initialised.
    """
    lines = [*library.search_path, *overrides]
    loader = GlobalHydra.instance().config_loader()
    listed: list[ResultDefault] = loader.compute_defaults_list(config_name, lines, RunMode.RUN).defaults
    found = [(library.find(str(one.config_path)), one.package or "") for one in listed]
    return [(path, package.replace("_global_", "")) for path, package in found if path is not None]
