"""Running a program: every instruction goes to the execution of its stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from maskpre.encoders.sparse.execution import Execution
from maskpre.encoders.sparse.layers import Kind, keeps_zero
from maskpre.encoders.sparse.program import Instruction, Program, Slot
from maskpre.types import Noise

Scales = Mapping[str, Float[Tensor, "b"]]


def drop_path_scales(
    net: nn.Module, program: Program, noise: Noise | None, *, training: bool
) -> dict[str, Float[Tensor, "b"]]:
    """Per layer of stochastic depth, its factor for every sample: 0 or 1 / (1 - rate).

    Huang et al. 2016, drawn per sample from `noise`; without noise, or in evaluation, no layer has any.
    """
    layers: dict[str, Any] = {path: net.get_submodule(path) for path in program.drop_paths}
    rates = {path: float(layer.drop_prob) for path, layer in layers.items()}
    active = {path: rate for path, rate in rates.items() if rate > 0}
    if noise is None or not training or not active:
        return {}
    draws = noise.uniform("drop_path", len(rates))
    order = list(rates)
    return {path: (draws[:, order.index(path)] >= rate) / (1 - rate) for path, rate in active.items()}


@dataclass(frozen=True)
class Result:
    """What an instruction gave: a feature as `home` lays it out, or with no home a plain value."""

    value: Any
    home: Execution | None = None

    def at(self, home: Execution) -> Any:
        """The feature as another execution needs it."""
        if self.home is home:
            return self.value
        assert self.home is not None
        return home.enter(self.home.leave(self.value))


class Runner:
    """One forward of `program`, whose layers `net` holds. `executions` has one entry per stage.

    With `recompute`, what lies between two residual sums is computed again in the backward pass instead of
    being stored.
    """

    def __init__(
        self,
        program: Program,
        net: nn.Module,
        *,
        executions: Sequence[Execution],
        scales: Scales,
        recompute: bool = False,
    ) -> None:
        self.program, self.net = program, net
        self.executions, self.scales, self.recompute = executions, scales, recompute

    def __call__(self, x: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        """The results of the stages, with zeros at hidden positions."""
        first = self.executions[0]
        results = {0: Result(first.enter(x), first)}
        for span in self.program.spans:
            if self.recompute and torch.is_grad_enabled():
                results = checkpoint(_Span(self, span), results, use_reentrant=False)
            else:
                results = self.run(span, results)
        outputs = (results[slot] for slot in self.program.outputs)
        return tuple(result.home.leave(result.value) for result in outputs if result.home is not None)

    def run(self, span: range, results: Mapping[int, Result]) -> dict[int, Result]:
        """The results that are needed after some instructions, from those needed before."""
        results = dict(results)
        for number in span:
            instruction = self.program.instructions[number]
            home = self.executions[instruction.stage]
            for slot in instruction.maps:
                results[slot] = Result(results[slot].at(home), home)
            is_map = instruction.kind not in (Kind.VALUE, Kind.SQUEEZE)
            value = self._run(instruction, home, results)
            results[number + 1] = Result(value, home if is_map else None)
            for slot in instruction.frees:
                del results[slot]
        return results

    def _run(self, instruction: Instruction, home: Execution, results: Mapping[int, Result]) -> Any:
        features = [results[slot].value for slot in instruction.maps]
        first = features[0] if features else None
        match instruction.kind:
            case Kind.VALUE:
                return self._value(instruction, results)
            case Kind.WINDOW:
                return home.window(self.net.get_submodule(instruction.target), first)
            case Kind.BATCH:
                return home.batch(self.net.get_submodule(instruction.target), first)
            case Kind.SAMPLE:
                return home.sample(self.net.get_submodule(instruction.target), first)
            case Kind.POINT:
                layer = self.net.get_submodule(instruction.target)
                return home.point(layer, first, keeps_zero=keeps_zero(layer))
            case Kind.SCALE:
                factor = _factor(instruction, results)
                return home.point(lambda data: data * factor, first, keeps_zero=True)
            case Kind.DROP_PATH:
                scale = self.scales.get(instruction.target)
                return first if scale is None else home.weigh(first, scale)
            case Kind.JOIN:
                return home.join(_concatenate if instruction.target is torch.cat else _add, features)
            case Kind.TURN:
                return home.turn(first, tuple(instruction.args[1:]))
            case Kind.SQUEEZE:
                return home.squeeze(first)

    def _value(self, instruction: Instruction, results: Mapping[int, Result]) -> Any:
        """What has nothing to do with feature maps is computed as it stands."""
        args, kwargs = _fill((instruction.args, instruction.kwargs), results)
        if instruction.how == "get_attr":
            path, _, name = str(instruction.target).rpartition(".")
            return getattr(self.net.get_submodule(path), name)
        if instruction.how == "call_module":
            return self.net.get_submodule(instruction.target)(*args, **kwargs)
        if instruction.how == "call_method":
            return getattr(args[0], instruction.target)(*args[1:], **kwargs)
        return instruction.target(*args, **kwargs)


class _Span:
    """Some instructions of a forward; when they run again, running statistics stay as they are."""

    def __init__(self, runner: Runner, span: range) -> None:
        self.runner, self.span, self.ran = runner, span, False

    def __call__(self, results: Mapping[int, Result]) -> dict[int, Result]:
        for execution in self.runner.executions:
            execution.again = self.ran
        self.ran = True
        return self.runner.run(self.span, results)


def _fill(arguments: Any, results: Mapping[int, Result]) -> Any:
    """Nested arguments with the results in place of their slots."""
    return fx.node.map_aggregate(
        arguments, lambda part: results[part.index].value if isinstance(part, Slot) else part
    )


def _factor(instruction: Instruction, results: Mapping[int, Result]) -> Any:
    """What a feature map is multiplied by."""
    other = [arg for arg in instruction.args if arg != Slot(instruction.maps[0])]
    return _fill(other[0], results)


def _add(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] + parts[1]


def _concatenate(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=1)
