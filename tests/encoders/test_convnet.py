"""Sparse convnets: what is hidden has no influence, what is visible is timm's, and nothing is shared."""

import re
from copy import deepcopy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from maskpre.encoders.convnet import ConvNet
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, MaskPlan

RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24]}
CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 24]}
NETWORKS = {
    "resnet18": RESNET,
    "resnet50": RESNET,
    "resnet50d": RESNET,
    "resnet50t": {**RESNET, "output_stride": 16},
    "resnext50_32x4d": {**RESNET, "cardinality": 2, "base_width": 64},
    "convnext_tiny": CONVNEXT,
    "convnext_atto": CONVNEXT,
    "convnextv2_tiny": CONVNEXT,
    "convnextv2_atto": {**CONVNEXT, "patch_size": 2},
    "mobilenetv2_050": {},
    "regnetx_002": {},
}
PIXELS = Grid((64, 64), (1, 1))


def encoder(name: str, **options) -> ConvNet:
    torch.manual_seed(0)
    net = ConvNet(name=name, img_size=64, options=NETWORKS[name], **options).double()
    for parameter in net.parameters():
        # timm starts residual branches at zero, which would leave nothing to see of them.
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return net


def plan_for(net: ConvNet, *, samples: int = 3, num_visible: int = 2) -> MaskPlan:
    grid = net.spec.grid
    scores = torch.rand(samples, grid.num_cells, generator=torch.Generator().manual_seed(1))
    return MaskPlan.from_order(scores.argsort(dim=1), num_visible=num_visible, grid=grid)


def pictures(samples: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(samples, 3, 64, 64, generator=generator, dtype=torch.float64)


def run(net: ConvNet, x: Tensor, plan: MaskPlan | None) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Maps, gradients and buffers of a training step on a copy."""
    net = deepcopy(net)
    maps = net(x, plan).maps
    sum(one.square().mean() for one in maps).backward()
    return list(maps), {n: p.grad for n, p in net.named_parameters()} | dict(net.named_buffers())


MIXED = ["tiles", "mask", "tiles", "mask", "tiles"]


@pytest.fixture(params=NETWORKS)
def net(request: pytest.FixtureRequest) -> ConvNet:
    return encoder(request.param)


def test_names_and_features_are_timms(net: ConvNet, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["net"]
    theirs = timm.create_model(name, num_classes=0, global_pool="", **NETWORKS[name]).double().eval()
    report = theirs.load_state_dict(net.state_dict(), strict=False)
    assert report.unexpected_keys == []
    assert all(key.startswith(("head.", "conv_head.", "bn2.")) for key in report.missing_keys)
    if not report.missing_keys or name.startswith("convnext"):
        encoded = net.eval()(pictures())
        expected = theirs.forward_features(pictures())
        assert torch.equal(encoded.maps[-1], expected)
        assert torch.equal(encoded.pooled("avg"), expected.flatten(2).mean(dim=2))


def test_maps_are_as_announced_and_empty_where_hidden(net: ConvNet) -> None:
    plan = plan_for(net)
    encoded = net(pictures(), plan)
    for spec, found in zip(net.spec.maps, encoded.maps, strict=True):
        size = 64 // spec.stride
        assert found.shape == (3, spec.channels, size, size)
        hidden = plan.at(Grid((size, size), (spec.stride,) * 2)).view(3, 1, size, size)
        assert (found.masked_select(hidden) == 0).all()
        assert (found.masked_select(~hidden) != 0).any()
    assert encoded.tokens.shape == (3, 2, net.spec.embed_dim)
    assert (encoded.ids is plan.keep, encoded.covers) == (True, "visible")


def test_hidden_pixels_have_no_influence(net: ConvNet) -> None:
    plan = plan_for(net)
    hidden = plan.at(PIXELS).view(3, 1, 64, 64)
    other = torch.where(hidden, torch.full_like(pictures(), 1e3), pictures())
    ours, theirs = run(net, pictures(), plan), run(net, other, plan)
    assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
    assert all(torch.equal(ours[1][name], theirs[1][name]) for name in ours[1])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("execution", "num_visible"), [("tiles", 2), ("tiles", 4), (MIXED, 3)])
def test_all_executions_give_the_same_values(name: str, execution: str | list[str], num_visible: int) -> None:
    plan = plan_for(encoder(name), num_visible=num_visible)
    expected = run(encoder(name, execution="mask"), pictures(), plan)
    found = run(encoder(name, execution=execution), pictures(), plan)
    for ours, theirs in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    for key, value in expected[1].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-7, atol=1e-8, msg=key)


def test_recomputing_changes_no_gradient_and_no_running_value(net: ConvNet) -> None:
    plan = plan_for(net)
    stored = run(net, pictures(), plan)
    net.set_grad_checkpointing()
    recomputed = run(net, pictures(), plan)
    for name, value in stored[1].items():
        torch.testing.assert_close(recomputed[1][name], value, rtol=1e-10, atol=1e-12, msg=name)


def test_two_models_and_a_copy_do_not_meet(net: ConvNet) -> None:
    plan, other = plan_for(net), plan_for(net, num_visible=1)
    alone = net(pictures(), plan).tokens
    copy = deepcopy(net)
    first = copy(pictures(), plan).tokens
    net(pictures(), other)
    assert torch.equal(alone, first)
    copy.zero_grad()
    first.sum().backward()
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("name", ["resnet18", "convnextv2_tiny"])
def test_compiles_as_one_graph(name: str) -> None:
    net = encoder(name)
    plan = plan_for(net)
    compiled = torch.compile(deepcopy(net), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(pictures(), plan).tokens, net(pictures(), plan).tokens)


def test_batch_norms_see_visible_positions_only() -> None:
    net = encoder("resnet18")
    plan = plan_for(net)
    net(pictures(), plan)
    visible = ~plan.at(PIXELS).view(3, 1, 64, 64)
    stem = conv2d(pictures() * visible, net.conv1.weight, stride=2, padding=3)
    rows = stem.movedim(1, -1)[visible[:, 0, ::2, ::2]]
    torch.testing.assert_close(net.bn1.running_mean, 0.1 * rows.mean(dim=0))
    torch.testing.assert_close(net.bn1.running_var, 0.9 + 0.1 * rows.var(dim=0))


def test_stochastic_depth_follows_the_noise() -> None:
    net = encoder("resnet18", drop_path_rate=0.5)
    plan = plan_for(net)
    # timm gives the first block none.
    keep, drop = torch.ones(3, 3).double(), torch.zeros(3, 3).double()
    mixed = torch.tensor([[1.0] * 3, [0.0] * 3, [1.0] * 3]).double()
    kept, dropped, both = (
        deepcopy(net)(pictures(), plan, GivenNoise({"drop_path": noise})).maps[1]
        for noise in (keep, drop, mixed)
    )
    assert not torch.allclose(kept, dropped)
    torch.testing.assert_close(both[1], dropped[1])
    torch.testing.assert_close(both[0], kept[0])
    undisturbed = net.eval()(pictures(), plan, GivenNoise({"drop_path": drop})).maps[1]
    torch.testing.assert_close(undisturbed, net(pictures(), plan).maps[1])


def seen_by(net: ConvNet, plan: MaskPlan, stride: int) -> Tensor:
    """Where a map of the stride holds anything but zeros."""
    maps = {spec.stride: found for spec, found in zip(net.spec.maps, net(pictures(), plan).maps, strict=True)}
    return (maps[stride] != 0).any(dim=1, keepdim=True)


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "mobilenetv2_050"])
@pytest.mark.parametrize("border", ["neighbours", "zero", "share"])
def test_layer_masking_hides_pixels_and_widens_what_is_seen(name: str, border: str) -> None:
    net = encoder(name, border=border).eval()
    plan = plan_for(net, num_visible=1)
    hidden = plan.at(PIXELS).view(3, 1, 64, 64)
    other = torch.where(hidden, torch.full_like(pictures(), 1e3), pictures())
    ours, theirs = (net(x, plan) for x in (pictures(), other))
    assert all(torch.equal(a, b) for a, b in zip(ours.maps, theirs.maps, strict=True))
    assert ours.tokens.shape == (3, 1, net.spec.embed_dim)
    visible = ~plan.at(Grid((16, 16), (4, 4))).view(3, 1, 16, 16)
    seen = seen_by(net, plan, 4)
    assert (seen | ~visible).all()
    # ConvNeXt's stem reads whole patches; its residual sums keep the seen area as it is.
    assert (seen.sum() > visible.sum()) == (name != "convnext_tiny")


def test_in_a_stage_of_a_resnet_layer_masking_widens_nothing() -> None:
    net = encoder("resnet50", border="neighbours").eval()
    plan = plan_for(net, num_visible=1)
    fine, coarse = seen_by(net, plan, 4), seen_by(net, plan, 8)
    assert torch.equal(coarse, fine[..., ::2, ::2])


@pytest.mark.parametrize("name", ["seresnet18", "mobilenetv3_small_050", "tf_mobilenetv3_small_minimal_100"])
def test_layer_masking_knows_squeeze_and_excitation_and_padding_by_size(name: str) -> None:
    net = ConvNet(name=name, img_size=64, border="neighbours", num_maps=2).double().eval()
    theirs = timm.create_model(name, num_classes=0, global_pool="").double().eval()
    theirs.load_state_dict(net.state_dict(), strict=False)
    everything = MaskPlan.from_order(torch.arange(4).expand(3, 4), num_visible=4, grid=net.spec.grid)
    expected = net(pictures()).maps
    for ours, plain in zip(net(pictures(), everything).maps, expected, strict=True):
        torch.testing.assert_close(ours, plain)
    if name == "seresnet18":
        torch.testing.assert_close(expected[-1], theirs.forward_features(pictures()))
    one = plan_for(net, num_visible=1)
    assert all(torch.isfinite(found).all() for found in net(pictures(), one).maps)


@pytest.mark.parametrize("border", ["neighbours", "zero", "share"])
def test_layer_masking_trains_and_recomputes(border: str) -> None:
    net = encoder("resnet50", border=border)
    plan = plan_for(net)
    stored = run(net, pictures(), plan)
    net.set_grad_checkpointing()
    recomputed = run(net, pictures(), plan)
    assert all(gradient.abs().sum() > 0 for gradient in stored[1].values())
    for name, value in stored[1].items():
        torch.testing.assert_close(recomputed[1][name], value, rtol=1e-10, atol=1e-12, msg=name)


REFUSED = {
    "an unknown name": ({"name": "resnet19"}, "timm has no model 'resnet19'; the nearest names: resnet18"),
    "another kind of network": (
        {"name": "vit_tiny_patch16_224"},
        "(PatchEmbed) calls 'getattr' on a",
    ),
    "squeeze and excitation": ({"name": "seresnet18"}, "layer 'layer1.0.se' averages over the whole picture"),
    "a group norm": ({"name": "resnet50_gn"}, "layer 'bn1' is a GroupNorm, which sparse convolution doesn't"),
    "a blurring pool": ({"name": "resnetblur18"}, "layer 'maxpool.1' is a BlurPool2d"),
    "a size": ({"name": "resnet18", "img_size": 80}, "(80) must be a multiple of the network's stride (32)"),
    "an option": ({"name": "resnet18", "options": {"depths": [1]}}, "timm can't build 'resnet18' with"),
    "too many maps": ({"name": "resnet18", "num_maps": 6}, "num_maps (6) must be in 1..5"),
    "a border": (
        {"name": "resnet18", "border": "neighbors"},
        "border must be one of 'cells', 'neighbours', 'zero', 'share', got 'neighbors'",
    ),
    "maps that fit no cells": (
        {"name": "legacy_xception"},
        "layer 'conv1': makes a map of 31 x 31 of one of 64 x 64, in which cells of 32 x 32 pixels can't be",
    ),
    "statistics": ({"name": "resnet18", "statistics": "all"}, "statistics must be 'rank' or 'world'"),
    "stages": (
        {"name": "resnet18", "execution": ["mask"]},
        "execution must be one of 'tiles', 'mask', or 5 of them (stem first), got ['mask']",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_networks_are_refused_with_the_reason(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        ConvNet(**{"img_size": 64, **options})
