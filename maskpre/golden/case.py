"""A golden case on disk: settings, weights, inputs, and what the official code made of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from maskpre.checkpoints.read import read_safetensors
from maskpre.errors import UserError
from maskpre.nearest import did_you_mean

Settings = TypeVar("Settings")
Tensors = dict[str, Tensor]


class CannotReplayError(UserError):
    """The case asks for something this package can't build; the message names it."""


@dataclass(frozen=True)
class Case:
    """One official run. Floating-point tensors are float64; without a model there are no loss and weights.

    `info` tells what else the official code said, which not every kind of case can be held against.
    `overrides` are applied to the experiments it is replayed with, behind what the case asks for.
    """

    name: str
    system: str
    hyperparameters: dict[str, Any]
    loss: float | None
    losses: dict[str, float]
    extras: dict[str, Any]
    weights: Tensors
    inputs: Tensors
    outputs: Tensors
    info: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    def settings(self, kind: type[Settings]) -> Settings:
        """The hyperparameters as the dataclass `kind`; see `parse`."""
        return parse(kind, self.hyperparameters, where=f"{self.name}: hyperparameters")

    def input(self, name: str) -> Tensor:
        """An input; CannotReplayError if the case has none of that name."""
        if name not in self.inputs:
            raise CannotReplayError(
                f"{self.name}: input {name!r} is missing; there are {sorted(self.inputs)}"
            )
        return self.inputs[name]


def parse(kind: type[Settings], given: Mapping[str, Any], *, where: str) -> Settings:
    """Plain values as the dataclass `kind`; CannotReplayError names a missing, unknown or mistyped one."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise CannotReplayError(f"{where}: {key!r} is unknown{did_you_mean(key, known)}")
    try:
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), dict(given)))
    except OmegaConfBaseException as error:
        raise CannotReplayError(f"{where}: {str(error).splitlines()[0]}") from error
    assert isinstance(result, kind)
    return result


def _tensors(path: Path) -> Tensors:
    values = read_safetensors(path)
    return {key: value.double() if value.is_floating_point() else value for key, value in values.items()}


def read_case(folder: Path, overrides: Sequence[str] = ()) -> Case:
    """Read a case's folder; UserError if a file is missing or broken."""
    try:
        record = json.loads((folder / "case.json").read_text())
        weights = folder / "weights.safetensors"
        return Case(
            name=f"{record['system']}/{folder.name}",
            system=record["system"],
            hyperparameters=record["hyperparameters"],
            loss=record["loss"],
            losses=record["losses"],
            extras=record.get("extras", {}),
            weights=_tensors(weights) if weights.exists() else {},
            inputs=_tensors(folder / "inputs.safetensors"),
            outputs=_tensors(folder / "outputs.safetensors"),
            info=record.get("info", {}),
            overrides=tuple(overrides),
        )
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{folder} holds no readable golden case: {error!r}") from error


def find_cases(paths: list[Path]) -> list[Path]:
    """Folders of cases at or below the paths, in order; UserError for a path that holds none."""
    found = []
    for path in paths:
        below = [file.parent for file in sorted(path.rglob("case.json"))]
        if not below:
            raise UserError(f"{path} holds no golden case (a folder with case.json)")
        found += below
    return found
