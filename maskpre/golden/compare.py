"""Holding a replay against its case."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from maskpre.golden.case import CannotReplayError, Case

LOSS_TOLERANCE = 1e-6
TENSOR_TOLERANCE = 5e-5
# The official loader resizes tables in float32.
LOADED_TOLERANCE = 1e-5
EXTRA_TOLERANCE = 1e-9
# Share of a case's largest gradient below which one is the rounding of terms that cancel, in float64.
CANCELLED = 1e-12


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What this package computed. Every output and extra of the case must be among it.

    `gradients` has this package's names, and `expected_gradients` the official ones under the same names.
    `also` pairs further tensors with what they must be; `info` is compared where the case has it.
    """

    loss: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    expected_gradients: Mapping[str, Tensor] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    also: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Deviation:
    """The largest error among several quantities and where it is; `what` is empty if there are none."""

    error: float = 0.0
    what: str = ""


@dataclass(frozen=True)
class Verdict:
    """How far a replay is from its case; `wrong` lists all that is out of tolerance, in words."""

    case: str
    loss: Deviation
    tensor: Deviation
    gradient: Deviation
    wrong: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is within tolerance."""
        return not self.wrong


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value.

    Infinite for another shape, for NaN, and for integers that differ.
    """
    if got.shape != expected.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    if not expected.is_floating_point():
        return 0.0 if bool((got == expected).all()) else math.inf
    difference = (got.double() - expected.double()).abs().max().item()
    scale = expected.abs().max().item()
    error = difference / scale if scale > 0 else (0.0 if difference == 0 else math.inf)
    return math.inf if math.isnan(error) else error


def gradient_errors(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """`relative_error` of every pair (got, expected) of gradients of one case.

    Where both are below 1e-12 of the largest expected gradient, they agree that it is zero.
    """
    largest = max((_largest(expected) for _, expected in pairs.values()), default=0.0)
    zero = CANCELLED * largest
    return {
        name: 0.0
        if got.shape == expected.shape and _largest(got) < zero and _largest(expected) < zero
        else relative_error(got, expected)
        for name, (got, expected) in pairs.items()
    }


def _largest(values: Tensor) -> float:
    """Largest absolute value; 0 of nothing."""
    return values.abs().max().item() if values.numel() else 0.0


def tolerance(name: str, expected: Tensor) -> float:
    """What a tensor of that name may be off by, relative to its largest value."""
    if name.startswith(("mask", "ids_")) or not expected.is_floating_point():
        return 0.0
    return LOADED_TOLERANCE if name.startswith("loaded/") else TENSOR_TOLERANCE


def compare(case: Case, replay: Replay) -> Verdict:
    """Compare everything the case holds; CannotReplayError names an output or extra the replay lacks."""
    loss_errors = _loss_errors(case, replay)
    expected = {name: value for name, value in case.outputs.items() if not name.startswith("grad/")}
    pairs = _pairs(case, "output", expected, replay.tensors) | dict(replay.also)
    gradients = _pairs(case, "gradient", replay.expected_gradients, replay.gradients)
    tensor_errors = {name: relative_error(*pair) for name, pair in pairs.items()}
    errors_of_gradients = gradient_errors(gradients)
    wrong = [
        *_excess(loss_errors, dict.fromkeys(loss_errors, LOSS_TOLERANCE)),
        *_excess(tensor_errors, {name: tolerance(name, pair[1]) for name, pair in pairs.items()}),
        *_excess(errors_of_gradients, dict.fromkeys(gradients, TENSOR_TOLERANCE)),
        *_wrong_extras(case, replay),
    ]
    return Verdict(
        case.name, _worst(loss_errors), _worst(tensor_errors), _worst(errors_of_gradients), tuple(wrong)
    )


def _loss_errors(case: Case, replay: Replay) -> dict[str, float]:
    expected = dict(case.losses)
    got = dict(replay.losses)
    if case.loss is not None:
        if replay.loss is None:
            raise CannotReplayError(f"{case.name}: the case has a loss, but its kind has none")
        expected["loss"], got["loss"] = case.loss, replay.loss
    errors = {}
    for name, value in expected.items():
        if name not in got:
            raise CannotReplayError(f"{case.name}: loss term {name!r} is unknown")
        error = abs(got[name].item() - value) / max(abs(value), 1e-300)
        errors[name] = math.inf if math.isnan(error) else error
    return errors


def _pairs(
    case: Case, kind: str, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    for name in expected:
        if name not in got:
            raise CannotReplayError(f"{case.name}: {kind} {name!r} is unknown to this kind of case")
    return {name: (got[name], value) for name, value in expected.items()}


def _excess(errors: Mapping[str, float], tolerances: Mapping[str, float]) -> list[str]:
    return [
        f"{name} is off by {error:.2g} (tolerance {tolerances[name]:g})"
        for name, error in errors.items()
        if error > tolerances[name]
    ]


def _worst(errors: Mapping[str, float]) -> Deviation:
    if not errors:
        return Deviation()
    name = max(errors, key=lambda key: errors[key])
    return Deviation(errors[name], name)


def _wrong_extras(case: Case, replay: Replay) -> list[str]:
    wrong = []
    for name, expected in case.extras.items():
        if name not in replay.extras:
            raise CannotReplayError(f"{case.name}: extra {name!r} is unknown to this kind of case")
        wrong += differences(replay.extras[name], expected, f"extras.{name}")
    for name in replay.info.keys() & case.info.keys():
        wrong += differences(replay.info[name], case.info[name], f"info.{name}")
    return wrong


def differences(got: Any, expected: Any, where: str) -> list[str]:
    """Where two nested plain values differ; numbers may be off by 1e-9 of their size."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        keys = sorted(got.keys() ^ expected.keys())
        if keys:
            return [f"{where} differs in the keys {keys[:5]}"]
        return [line for key in expected for line in differences(got[key], expected[key], f"{where}.{key}")]
    if isinstance(expected, str | Mapping) or not isinstance(expected, Sequence):
        return [] if _same(got, expected) else [f"{where} is {got!r}, expected {expected!r}"]
    if not isinstance(got, Sequence) or len(got) != len(expected):
        return [f"{where} is {got!r}, expected {expected!r}"]
    return [
        line
        for i, (a, b) in enumerate(zip(got, expected, strict=True))
        for line in differences(a, b, f"{where}[{i}]")
    ]


def _same(got: object, expected: object) -> bool:
    if isinstance(got, int | float) and isinstance(expected, int | float):
        return math.isclose(got, expected, rel_tol=EXTRA_TOLERANCE, abs_tol=1e-15)
    return got == expected
