"""What became of the tensors of a checkpoint."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from maskpre.checkpoints.architecture import Architecture

Shape = tuple[int, ...]
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Names of a checkpoint's tensors by what was done with them, and of those the model made itself.

    `loaded` includes the `resized`, which carry their shapes before and after, and the `copied`, which come
    from a tensor that blocks shared. `left_out` says why; `fresh` are the model's tensors that the checkpoint
    has nothing for. `architecture` is what was built, if a timm model was.
    """

    source: str
    kind: str
    loaded: tuple[str, ...] = ()
    resized: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    copied: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    architecture: Architecture | None = None

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.kind}): {len(self.loaded)} tensors loaded"]
        for (old, new), names in _by_value(self.resized).items():
            lines.append(f"  resized   {_list(names, _numberless)}: {old} -> {new}")
        if self.copied:
            lines.append(f"  copied    {_list(self.copied, _numberless)}")
        for reason, names in _by_value(self.left_out).items():
            lines.append(f"  left out  {_list(names, _first_part)}: {reason}")
        if self.fresh:
            lines.append(f"  fresh     {_list(self.fresh, _first_part)}")
        return "\n".join(lines)


def _by_value(values: Mapping[str, Value]) -> dict[Value, list[str]]:
    """The names that have each value."""
    names: dict[Value, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return names


def _numberless(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)


def _first_part(name: str) -> str:
    first, dot, _ = name.partition(".")
    return f"{first}.*" if dot else first


def _list(names: Sequence[str], group: Callable[[str], str]) -> str:
    """Names on one line; several that `group` maps to the same text are counted: blocks.* (24)."""
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(group(name), []).append(name)
    return ", ".join(own[0] if len(own) == 1 else f"{text} ({len(own)})" for text, own in members.items())
