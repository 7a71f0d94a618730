"""SparK's decoder: what it computes step by step, what it reads, and what it refuses."""

import re
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from timm.layers.norm import LayerNorm2d
from torch import nn
from torch.nn.functional import batch_norm, layer_norm

from maskpre.encoders.base import EncoderSpec, MapSpec
from maskpre.ops.patchify import unpatchify
from maskpre.predictors.unet_decoder import UNetDecoder
from maskpre.types import Encoded, Grid, MaskPlan, Step

GRID = Grid.over((16, 24), (8, 8))
SPEC = EncoderSpec(
    embed_dim=16,
    grid=GRID,
    out_grid=GRID,
    num_prefix_tokens=0,
    in_chans=3,
    hidden="sparse",
    maps=(MapSpec(5, 2), MapSpec(6, 4), MapSpec(16, 8)),
)
PLAN = MaskPlan.from_order(torch.tensor([[4, 0, 1, 2, 3, 5], [3, 5, 0, 1, 2, 4]]), num_visible=2, grid=GRID)
NORMS = ("batch", "layer", "none")


def make(*, spec=SPEC, **options):
    torch.manual_seed(0)
    decoder = UNetDecoder(
        **{"encoder": spec, "out_dim": 192, "region": "masked", "width": 8, **options}
    ).double()
    for weight in decoder.parameters():
        nn.init.normal_(weight, mean=0.2, std=0.3)
    return decoder


def hidden_at(stride):
    size = tuple(pixels // stride for pixels in GRID.input_size)
    return PLAN.at(Grid(size, (stride, stride))).unflatten(1, (1, *size))


def encoded(spec=SPEC):
    """Maps as a sparse encoder gives them: zero where hidden."""
    generator = torch.Generator().manual_seed(1)
    maps = []
    for one in spec.maps:
        size = (2, one.channels, 16 // one.stride, 24 // one.stride)
        values = torch.randn(size, generator=generator, dtype=torch.float64)
        maps.append(values.masked_fill(hidden_at(one.stride), 0.0).requires_grad_())
    return Encoded(torch.zeros(2, 2, 16), GRID, ids=PLAN.keep, covers="visible", maps=tuple(maps))


def run(decoder, source, plan=PLAN):
    return decoder(source, plan, Step(batch={}, views={}, noise=None, progress=0.0))


def filled(densify, x, stride, norm):
    """A map normalised over its visible positions, tokens elsewhere, projected."""
    visible = ~hidden_at(stride).expand_as(x).movedim(1, -1)
    rows = x.movedim(1, -1)[visible].view(-1, x.shape[1])
    if norm == "batch":
        rows = batch_norm(rows, None, None, densify.norm.weight, densify.norm.bias, training=True)
    elif norm == "layer":
        rows = layer_norm(rows, rows.shape[1:], densify.norm.weight, densify.norm.bias, eps=1e-6)
    full = densify.mask_token.movedim(1, -1).expand_as(x.movedim(1, -1))
    return densify.proj(full.masked_scatter(visible, rows).movedim(-1, 1))


def reference(decoder, source, norm):
    """The picture, block by block (Tian et al. 2023, section 3.2)."""
    x = 0
    for number, block in enumerate(decoder.blocks):
        if str(number) in decoder.densify:
            spec, found = SPEC.maps[-1 - number], source.maps[-1 - number]
            x = x + filled(decoder.densify[str(number)], found, spec.stride, norm)
        x = block.conv1(block.up(x))
        x = batch_norm(x, None, None, block.bn1.weight, block.bn1.bias, training=True).clamp(0, 6)
        x = batch_norm(block.conv2(x), None, None, block.bn2.weight, block.bn2.bias, training=True)
    return decoder.proj(x)


@pytest.mark.parametrize("norm", NORMS)
def test_values_and_gradients(norm):
    decoder, source = make(densify_norm=norm), encoded()
    found, expected = unpatchify(run(decoder, source).tokens, GRID), reference(decoder, source, norm)
    assert found.shape == (2, 3, 16, 24)
    torch.testing.assert_close(found, expected)
    scale = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    inputs = [*source.maps, *decoder.parameters()]
    ours, theirs = (torch.autograd.grad((out * scale).sum(), inputs) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_what_hidden_positions_hold_is_never_read():
    decoder, source = make(), encoded()
    filled_up = tuple(
        torch.where(hidden_at(spec.stride), torch.full_like(x, 7.0), x)
        for spec, x in zip(SPEC.maps, source.maps, strict=True)
    )
    expected = run(deepcopy(decoder), source).tokens
    assert torch.equal(run(decoder, replace(source, maps=filled_up)).tokens, expected)


def test_without_a_plan_no_token_is_read():
    decoder = make()
    tokens = run(decoder, encoded(), plan=None).tokens
    tokens.sum().backward()
    assert tokens.shape == (2, 6, 192)
    assert all(densify.mask_token.grad is None for densify in decoder.densify.values())


def test_only_the_coarsest_map_of_the_right_width_goes_unprojected():
    sizes = (MapSpec(4, 2), MapSpec(8, 4), MapSpec(16, 8))
    decoder = make(spec=replace(SPEC, maps=sizes), width=16)
    kinds = {level: densify.proj for level, densify in decoder.densify.items()}
    assert isinstance(kinds["0"], nn.Identity)
    assert [kinds[level].kernel_size for level in ("1", "2")] == [(3, 3), (3, 3)]
    assert make().densify["0"].proj.kernel_size == (1, 1)


def test_of_two_maps_of_a_stride_the_later_is_read():
    spec = replace(SPEC, maps=(MapSpec(6, 4), MapSpec(10, 8), MapSpec(16, 8)))
    decoder, source = make(spec=spec), encoded(spec)
    run(decoder, source).tokens.square().sum().backward()
    assert source.maps[1].grad is None
    assert source.maps[2].grad.abs().sum() > 0
    assert decoder.densify["0"].mask_token.shape[1] == 16


def test_norms_of_maps_are_those_asked_for():
    kinds = {norm: type(make(densify_norm=norm).densify["1"].norm) for norm in NORMS}
    assert kinds == {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}


def test_few_values_per_cell_are_averages_over_its_pixels():
    decoder, source = make(out_dim=2, width=16), encoded()
    found = run(decoder, source)
    picture = decoder.picture(decoder.dense_maps(source, PLAN))
    assert picture.shape == (2, 2, 16, 24)
    expected = picture.unflatten(2, (2, 8)).unflatten(4, (3, 8)).mean(dim=(3, 5)).flatten(2)
    torch.testing.assert_close(found.tokens, expected.transpose(1, 2))
    assert (found.grid, found.ids) == (GRID, None)


def test_recomputing_changes_no_gradient_and_no_running_value():
    results = []
    for recompute in (False, True):
        decoder, source = make(), encoded()
        decoder.set_grad_checkpointing(recompute)
        run(decoder, source).tokens.square().sum().backward()
        results.append([*(p.grad for p in decoder.parameters()), *(x.grad for x in source.maps)])
        results[-1] += list(decoder.buffers())
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_initialisation_is_the_official_one():
    torch.manual_seed(0)
    decoder = UNetDecoder(encoder=SPEC, out_dim=192, region="masked", width=64).requires_grad_(False)
    first = decoder.blocks[0]
    assert first.conv1.weight.std() == pytest.approx(0.02, rel=0.03)
    # Kaiming over the fan-out that torch counts for a transposed weight: input channels times the kernel.
    assert first.up.weight.std() == pytest.approx((2 / (64 * 16)) ** 0.5, rel=0.03)
    assert first.up.bias.abs().max() == decoder.proj.bias.abs().max() == 0
    token = decoder.densify["0"].mask_token
    assert 0.01 < token.abs().max() <= 0.02


REFUSED = {
    "no maps": ({"encoder": replace(SPEC, maps=())}, "use encoder=resnet or encoder=convnext"),
    "an unknown norm": ({"densify_norm": "group"}, "must be 'batch', 'layer' or 'none', got 'group'"),
    "unknown statistics": ({"statistics": "node"}, "statistics must be 'rank' or 'world', got 'node'"),
    "a narrow decoder": ({"width": 7}, "width (7) can't be halved 3 times; nearest: 8"),
    "another stride": (
        {"encoder": replace(SPEC, out_grid=Grid.over((24, 24), (12, 12)))},
        "stride must be a power of two, got (12, 12)",
    ),
    "a target that is no picture": (
        {"out_dim": 100},
        "100 values per cell of (8, 8) pixels are no picture, and more than the 1 channels at full",
    ),
    "the class token": ({"region": "all+cls"}, "UNetDecoder predicts no class token"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_decoders_are_refused_with_the_reason(case):
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        UNetDecoder(**{"encoder": SPEC, "out_dim": 192, "region": "masked", "width": 8, **options})


@pytest.mark.slow
def test_compiles_as_one_graph():
    decoder, source = make(), encoded()
    expected = run(deepcopy(decoder), source).tokens
    found = torch.compile(decoder, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(found, source).tokens, expected)


def test_narrow_numbers_give_nearly_the_same():
    decoder, source = make().float(), encoded()
    source = replace(source, maps=tuple(x.detach().float() for x in source.maps))
    expected = run(deepcopy(decoder), source).tokens
    with torch.autocast("cpu", torch.bfloat16):
        found = run(decoder, source).tokens
    found.sum().backward()
    assert (found - expected).norm() < 0.05 * expected.norm()
