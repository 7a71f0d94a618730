"""Layer masking (github.com/SriramB-98/layer_masking): single layers, and networks on masked pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models.resnet import Bottleneck, ResNet

from maskpre.encoders.sparse.border import Border, LayerMasking, SeenFeature, fill_border
from maskpre.encoders.sparse.program import trace
from maskpre.encoders.sparse.run import Result, Runner
from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay

BORDERS: Mapping[int, Border] = {1: "neighbours", 0: "zero", -1: "share"}
PLAIN: Mapping[str, nn.Module] = {
    "maxpool": nn.MaxPool2d(3, 2, 1),
    "avgpool": nn.AvgPool2d(2, 2),
    "relu": nn.ReLU(),
    "silu": nn.SiLU(),
    "sigmoid": nn.Sigmoid(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "gelu": nn.GELU(),
    "identity": nn.Identity(),
}


@dataclass
class UnitSettings:
    """Single layers: the convolutions with their modes, sweeps of the fill, and further layers."""

    kind: str
    channels: int
    convs: dict[str, dict[str, Any]]
    its: list[int]
    fill_iters: list[int]
    plain: list[str]


@dataclass
class NetSettings:
    """A network of bottleneck blocks and the modes it runs in; None is the ordinary forward."""

    kind: str
    arch: str
    widths: list[int]
    layers: list[int]
    stem: int
    groups: int
    base_width: int
    num_classes: int
    store_channels: int
    modes: list[int | None]
    grad_mode: str
    grad_names: list[str]


def replay(case: Case) -> Replay:
    """Features, masks and gradients in every mode."""
    kind = case.hyperparameters["kind"]
    if kind == "units":
        return _units(case)
    arch = case.hyperparameters.get("arch")
    if kind != "net" or arch != "resnet":
        raise CannotReplayError(
            f"{case.name}: kind must be 'units', or 'net' with arch 'resnet', got {kind!r} with arch {arch!r}"
        )
    return _net(case)


def _units(case: Case) -> Replay:
    s = case.settings(UnitSettings)
    x, seen = case.input("features"), case.input("mask").double()
    tensors: Tensors = {f"fill/{k}": fill_border(x, seen, k) for k in s.fill_iters}
    loss = torch.zeros((), dtype=torch.float64)
    for name, sizes in s.convs.items():
        for it in s.its:
            if f"{name}/it{it}" in case.outputs:
                found = _convolved(case, name, sizes, BORDERS[it])
                loss = loss + found[""].square().mean()
                tensors |= {f"{name}/it{it}{suffix}": value for suffix, value in found.items()}
    execution = LayerMasking(seen)
    norm = nn.BatchNorm2d(s.channels).double().eval()
    norm.load_state_dict({key.removeprefix("bn."): v for key, v in case.weights.items() if key[:3] == "bn."})
    layers = {"bn": norm, **{name: PLAIN[name] for name in s.plain if name != "gap"}}
    for name, layer in layers.items():
        run = execution.window if name.endswith("pool") else _pointwise(execution)
        feature = run(layer, execution.enter(x))
        assert feature.seen is not None
        tensors |= {name: feature.data, f"{name}/mask": feature.seen.to(torch.uint8)}
    return Replay(loss=loss, tensors={**tensors, "gap": execution.squeeze(execution.enter(x))})


def _pointwise(execution: LayerMasking) -> Any:
    return lambda layer, feature: execution.point(layer, feature, keeps_zero=False)


def _convolved(case: Case, name: str, sizes: Mapping[str, Any], border: Border) -> Tensors:
    """Output, mask, and the gradient of the output's mean square, by suffix."""
    weight = case.weights[f"{name}.weight"]
    bias = case.weights.get(f"{name}.bias")
    groups, out = int(sizes.get("g", 1)), int(sizes["out"])
    layer = nn.Conv2d(int(sizes["in"]), out, sizes["k"], sizes["s"], sizes["p"], 1, groups, bias is not None)
    layer = layer.double()
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    x, seen = case.input("features"), case.input("mask").double()
    # Partial convolutions are handed features that the mask has emptied already.
    x = (x * seen if border == "share" else x.clone()).requires_grad_()
    feature = LayerMasking(seen, border=border).window(layer, SeenFeature(x, seen=seen))
    assert feature.seen is not None
    (gradient,) = torch.autograd.grad(feature.data.square().mean(), x)
    return {"": feature.data, "/mask": feature.seen.to(torch.uint8), "/grad_features": gradient}


class _BottleneckNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet, in any width."""

    def __init__(self, s: NetSettings) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation = nn.BatchNorm2d, s.stem, 1
        self.groups, self.base_width = s.groups, s.base_width
        self.conv1 = nn.Conv2d(3, s.stem, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(s.stem), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        for i, (width, depth) in enumerate(zip(s.widths, s.layers, strict=True), start=1):
            self.add_module(
                f"layer{i}", self._make_layer(Bottleneck, width, depth, stride=1 if i == 1 else 2)
            )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * s.widths[-1], s.num_classes)


def _net(case: Case) -> Replay:
    s = case.settings(NetSettings)
    net = _BottleneckNet(s).double().eval()
    net.load_state_dict(case.weights)
    tensors: Tensors = {}
    losses: dict[str, Tensor] = {}
    for it in s.modes:
        mode = "bare" if it is None else f"it{it}"
        results = _run(case, net, it)
        losses[mode] = cross_entropy(results["fc"].value, case.input("label"))
        tensors[f"{mode}/logits"] = results["fc"].value
        tensors |= _stored(mode, results, s.store_channels)
    named = dict(net.named_parameters())
    gradients = torch.autograd.grad(losses[s.grad_mode], [named[name] for name in s.grad_names])
    return Replay(
        loss=torch.stack(list(losses.values())).sum(),
        losses=losses,
        tensors={name: value for name, value in tensors.items() if name in case.outputs},
        gradients=dict(zip(s.grad_names, gradients, strict=True)),
        expected_gradients={name: case.outputs[f"grad/{name}"] for name in s.grad_names},
    )


def _run(case: Case, net: nn.Module, it: int | None) -> dict[str, Result]:
    """Results of the modules that the case stores, by path."""
    images, mask = case.input("images"), case.input("mask").double().expand(-1, 1, -1, -1)
    stored = {name.split("/", 2)[2] for name in case.outputs if "/feature/" in name} | {"fc"}
    order = [name for name, _ in net.named_modules() if name in stored]
    program = trace(net, stages=order, method="forward")
    seen = torch.ones_like(images[:, :1]) if it is None else mask.expand(len(images), -1, -1, -1)
    execution = LayerMasking(seen, border="zero" if it is None else BORDERS[it])
    runner = Runner(program, net, executions=[execution] * program.num_stages, scales={})
    start = {0: Result(execution.enter(images), execution)}
    results = runner.run(range(len(program.instructions)), start)
    return {name: results[slot] for name, slot in zip(order, program.outputs, strict=True)}


def _stored(mode: str, results: Mapping[str, Result], channels: int) -> Tensors:
    found: Tensors = {}
    for name, result in results.items():
        if isinstance(result.value, SeenFeature):
            assert result.value.seen is not None
            found[f"{mode}/feature/{name}"] = result.value.data[:1, :channels]
            found[f"{mode}/mask/{name}"] = result.value.seen.to(torch.uint8)
        elif name != "fc":
            found[f"{mode}/feature/{name}"] = result.value[:1, :channels]
    return found
