"""Where a value of a configuration was set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override

from maskpre.config.library import CONFIG_DIR


def _key_lines(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int]]:
    """Dotted paths of all keys of a YAML document with their line numbers."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            yield here, key.start_mark.line + 1
            yield from _key_lines(value, here)


@dataclass(frozen=True)
class Origins:
    """Overrides, and files (see `loaded_files`), that a configuration was composed from.

    Later files win over earlier ones.
    """

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
    return str(file.relative_to(CONFIG_DIR.parent)) if file.is_relative_to(CONFIG_DIR) else str(file)
