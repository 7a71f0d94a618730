"""Where a value of a configuration was set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.types import RunMode


def _key_lines(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int]]:
    """Dotted paths of all keys of a YAML document with their line numbers."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            yield here, key.start_mark.line + 1
            yield from _key_lines(value, here)


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    found = (folder / f"{name}.yaml" for folder in folders)
    return next((path for path in found if path.is_file()), None)


def loaded_files(config_name: str, overrides: Sequence[str], loader: ConfigLoader) -> list[tuple[Path, str]]:
    """The files that Hydra's defaults lists name, in order, with the dotted path each is placed at."""
    chosen: list[ResultDefault] = loader.compute_defaults_list(
        config_name, list(overrides), RunMode.RUN
    ).defaults
    folders = [Path(source.path) for source in loader.get_sources() if source.scheme() == "file"]
    found = [(_find(str(one.config_path), folders), one.package or "") for one in chosen]
    return [(path, package.replace("_global_", "")) for path, package in found if path is not None]


@dataclass(frozen=True)
class Origins:
    """Overrides and files (see `loaded_files`) that a configuration was composed from; later entries win."""

    overrides: Sequence[Override]
    files: Sequence[tuple[Path, str]]

    def where(self, path: str) -> str:
        """Where the value at a dotted path was set, or the nearest part round it."""
        for override in reversed(self.overrides):
            key = override.key_or_group
            if path == key or path.startswith(f"{key}.") or key.startswith(f"{path}."):
                return f"set on the command line: {override.input_line}"
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            if place := self._in_files(".".join(parts[:length])):
                return place
        return ""

    def _in_files(self, path: str) -> str:
        for file, package in reversed(self.files):
            if package == path:
                return f"set in {_readable(file)}"
            prefix = f"{package}." if package else ""
            if path.startswith(prefix):
                lines = dict(_key_lines(yaml.compose(file.read_text())))
                if line := lines.get(path.removeprefix(prefix)):
                    return f"set in {_readable(file)}, line {line}"
        return ""


def _readable(file: Path) -> str:
    parts = file.parts
    return str(Path(*parts[parts.index("configs") :])) if "configs" in parts else str(file)
