"""A network as a list of instructions, so that whoever runs it decides how each layer sees the plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn

from maskpre.encoders.sparse.layers import FIRST, FUNCTIONS, LAST, MODULES, Kind


@dataclass(frozen=True)
class Slot:
    """The result of an earlier instruction, by its number."""

    index: int


@dataclass(frozen=True)
class Instruction:
    """One layer or function call. `target` is a module's or parameter's path, a function or a method's name.

    Arguments that are results stand as `Slot`; `maps` are those of them that are feature maps. `owner` is the
    path of the module that makes the call, `stage` counts from 0 (the stem). `frees` are results that nobody
    reads after this instruction.
    """

    kind: Kind
    how: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    maps: tuple[int, ...]
    owner: str
    stage: int
    frees: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """What a network computes. Slot 0 is the picture, slot i the result of instruction i - 1.

    `outputs` are the slots of the stages' results, `num_stages` counts the stem.
    """

    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]

    @property
    def num_stages(self) -> int:
        """The stem, and one stage per result."""
        return 1 + len(self.outputs)

    def check(self, known: frozenset[Kind]) -> None:
        """Raise ValueError if the network averages over the picture and `known` has no such kind of layer."""
        for instruction in self.instructions:
            if instruction.kind not in known:
                raise ValueError(
                    f"layer {instruction.owner!r} averages over the whole picture (squeeze and excitation), "
                    "which sparse convolution doesn't know; choose a network without it, or layer masking "
                    "(encoder.border=neighbours)"
                )

    @property
    def spans(self) -> tuple[range, ...]:
        """The instructions, cut behind every sum and where stages end."""
        ends = set(self.outputs) | {
            number
            for number, instruction in enumerate(self.instructions, start=1)
            if instruction.kind is Kind.JOIN and instruction.target is not torch.cat
        }
        cuts = [0, *sorted(ends)]
        return tuple(range(start, stop) for start, stop in pairwise(cuts))

    @property
    def paths(self) -> frozenset[str]:
        """Modules and parameters that are used."""
        return frozenset(i.target for i in self.instructions if i.how in ("call_module", "get_attr"))

    @property
    def drop_paths(self) -> tuple[str, ...]:
        """The layers of stochastic depth, in order."""
        return tuple(str(i.target) for i in self.instructions if i.kind is Kind.DROP_PATH)


class _Tracer(fx.Tracer):
    """Records calls of layers, and which record is the result of which module."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.traced_func_name = method
        self.results: dict[str, fx.Node] = {}
        self.owners: dict[fx.Node, str] = {}
        self._inside: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Layers that are known, and those without parts."""
        return type(m) in MODULES or not any(True for _ in m.children())

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Note the module's result."""
        path = self.path_of_module(m)
        self._inside.append(path)
        result = super().call_module(m, forward, args, kwargs)
        self._inside.pop()
        if isinstance(result, fx.Proxy):
            self.results[path] = result.node
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Note inside which module a call happens."""
        node = super().create_node(*args, **kwargs)
        self.owners[node] = self._inside[-1] if self._inside else ""
        return node


@dataclass
class _Recorder:
    """Turns traced nodes into instructions; refuses what no execution knows."""

    net: nn.Module
    tracer: _Tracer
    slots: dict[fx.Node, int] = field(default_factory=dict)
    maps: set[fx.Node] = field(default_factory=set)

    def kind(self, node: fx.Node) -> Kind:
        """What the node does to feature maps; ValueError if that isn't known."""
        maps = [source for source in node.all_input_nodes if source in self.maps]
        if not maps:
            return Kind.VALUE
        if node.op == "call_module":
            layer = self.net.get_submodule(str(node.target))
            if type(layer) not in MODULES:
                raise ValueError(f"layer {node.target!r} is a {type(layer).__name__}, {_KNOWN}")
            return MODULES[type(layer)]
        if node.target not in FUNCTIONS:
            name = getattr(node.target, "__name__", node.target)
            raise ValueError(f"{self._where(node)} calls {name!r} on a feature map, {_KNOWN}")
        kind = FUNCTIONS[node.target]
        usual = {
            Kind.SCALE: len(maps) == 1 and len(node.args) == 2,
            Kind.TURN: tuple(node.args[1:]) in (LAST, FIRST),
            Kind.JOIN: _joins_maps(node, self.maps),
        }
        if not usual.get(kind, True):
            name = getattr(node.target, "__name__", node.target)
            raise ValueError(f"{self._where(node)} calls {name!r} in a way {_KNOWN}")
        return kind

    def _where(self, node: fx.Node) -> str:
        path = self.tracer.owners[node]
        layer = self.net.get_submodule(path)
        return f"layer {path!r} ({type(layer).__name__})" if path else type(self.net).__name__

    def _slot(self, argument: Any) -> Any:
        return Slot(self.slots[argument]) if isinstance(argument, fx.Node) else argument

    def record(self, node: fx.Node, stage: int) -> Instruction:
        """The node as an instruction."""
        kind = self.kind(node)
        if kind is not Kind.VALUE and kind is not Kind.SQUEEZE:
            self.maps.add(node)
        args, kwargs = fx.node.map_aggregate((node.args, node.kwargs), self._slot)
        self.slots[node] = len(self.slots)
        inputs = {self.slots[n] for n in node.all_input_nodes if n in self.maps}
        maps = tuple(slot for slot in _slots((args, kwargs)) if slot in inputs)
        owner = self.tracer.owners[node]
        return Instruction(kind, node.op, node.target, tuple(args), dict(kwargs), maps, owner, stage)


def _joins_maps(node: fx.Node, maps: set[fx.Node]) -> bool:
    """Whether a sum has two maps, or a concatenation nothing but maps along their channels."""
    if node.target is not torch.cat:
        return len(node.args) == 2 and all(part in maps for part in node.args) and not node.kwargs
    parts: Any = node.args[0]
    dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    return bool(dim == 1) and all(part in maps for part in parts)


def _slots(arguments: Any) -> list[int]:
    """Numbers of the results among nested arguments, in order, repeated ones too."""
    found: list[int] = []
    fx.node.map_aggregate(arguments, lambda arg: found.append(arg.index) if isinstance(arg, Slot) else None)
    return found


_KNOWN = (
    "which sparse convolution doesn't know: it knows convolutions, max and average pools, batch, layer and "
    "instance norms, GRN, activations, stochastic depth, sums and concatenations"
)


def trace(net: nn.Module, *, stages: Sequence[str], method: str = "forward_features") -> Program:
    """What `net.method` computes, up to the results of the modules `stages`.

    Raises ValueError naming a layer or function that is not known, or a network that can't be traced.
    """
    tracer = _Tracer(method)
    try:
        graph = tracer.trace(net)
    except (fx.proxy.TraceError, TypeError, AttributeError) as error:
        raise ValueError(f"the layers of a {type(net).__name__} can't be listed: {error}") from error
    unknown = [name for name in stages if name not in tracer.results]
    if unknown:
        raise ValueError(f"a {type(net).__name__} computes no {', '.join(unknown)}")
    ends = [tracer.results[name] for name in stages]
    recorder = _Recorder(net, tracer)
    instructions: list[Instruction] = []
    stage = 0
    for node in graph.nodes:
        if node.op == "placeholder":
            recorder.slots[node] = 0
            recorder.maps.add(node)
            continue
        if node.op == "output" or ends[-1] in recorder.slots:
            break
        stage += int(stage == 0 and f"{tracer.owners[node]}.".startswith(f"{stages[0]}."))
        instructions.append(recorder.record(node, min(stage, len(stages))))
        stage += int(node in ends and node is not ends[-1])
    outputs = tuple(recorder.slots[end] for end in ends)
    return Program(_free(instructions, outputs), outputs)


def _free(instructions: Sequence[Instruction], outputs: Sequence[int]) -> tuple[Instruction, ...]:
    """Note after which instruction each result is read for the last time."""
    last: dict[int, int] = {}
    for number, instruction in enumerate(instructions):
        last.update(dict.fromkeys(_slots((instruction.args, instruction.kwargs)), number))
    frees: dict[int, list[int]] = {}
    for slot, number in last.items():
        if slot not in outputs:
            frees.setdefault(number, []).append(slot)
    return tuple(
        replace(instruction, frees=tuple(frees.get(number, ())))
        for number, instruction in enumerate(instructions)
    )
