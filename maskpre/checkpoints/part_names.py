"""Official names that differ from timm's in the first part alone."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PartNames:
    """The names of the code base `of`; `parts` maps an official first part to what MaskedModel calls it.

    All other names are the encoder's, which are timm's.
    """

    of: str
    parts: Mapping[str, str]

    def covers(self, official: str) -> bool:
        """Whether an official name belongs to one of the parts."""
        return official.partition(".")[0] in self.parts

    def model_name(self, official: str) -> str:
        """MaskedModel's name of an official tensor."""
        part, dot, rest = official.partition(".")
        return f"{self.parts[part]}{dot}{rest}" if part in self.parts else f"encoder.{official}"

    def official_name(self, name: str) -> str:
        """The official name of a MaskedModel tensor; ValueError if the code base has nothing like it."""
        for part, ours in self.parts.items():
            if name == ours or name.startswith(f"{ours}."):
                return part + name.removeprefix(ours)
        if not name.startswith("encoder.") or name == "encoder.mask_token":
            raise ValueError(f"{name!r} has no name in {self.of}'s official checkpoints")
        return name.removeprefix("encoder.")
