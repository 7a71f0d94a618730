"""What became of the tensors of a checkpoint."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Names of a checkpoint's tensors by what was done with them, and of those the model made itself.

    `loaded` includes the `resized`, which carry their shapes before and after, and the `copied`, which come
    from a tensor that blocks shared. `left_out` says why; `fresh` are the model's tensors that the checkpoint
    has nothing for.
    """

    source: str
    kind: str
    loaded: tuple[str, ...] = ()
    resized: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    copied: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.kind}): {len(self.loaded)} tensors loaded"]
        lines += [f"  resized   {text}" for text in _by_value(self.resized, "{0[0]} -> {0[1]}")]
        lines += [f"  copied    {text}" for text in _grouped(self.copied)]
        lines += [f"  left out  {text}" for text in _by_value(self.left_out, "{0}")]
        if self.fresh:
            lines.append(f"  fresh     {', '.join(_grouped(self.fresh))}")
        return "\n".join(lines)


def _by_value(values: Mapping[str, object], form: str) -> list[str]:
    """One text per value: the names that have it, grouped, and the value in a form of `str.format`."""
    texts = []
    for value in dict.fromkeys(values.values()):
        names = _grouped(name for name, other in values.items() if other == value)
        texts.append(f"{', '.join(names)}: {form.format(value)}")
    return texts


def _grouped(names: Iterable[str]) -> list[str]:
    """Names by their first part, with counts: blocks.* (24)."""
    names = list(names)
    counts = Counter(name.partition(".")[0] for name in names)
    first = {name.partition(".")[0]: name for name in reversed(names)}
    return [first[part] if count == 1 else f"{part}.* ({count})" for part, count in counts.items()]
