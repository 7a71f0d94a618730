"""Samples that differ in the number of visible cells are encoded as each of them alone."""

import importlib.util

import pytest
import torch
from torch import nn

from maskpre.encoders import ragged
from maskpre.encoders.attend import set_attention
from maskpre.encoders.vit import ViT
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, MaskPlan, Taps

BOUNDS = (1, 6)
LENGTHS = (3, 6, 1, 4)
OPTIONS = {
    "sin-cos": {},
    "learned": {"position": "learned"},
    "no position, no class token": {"position": "none", "class_token": False},
    "registers": {"reg_tokens": 2, "position": "learned"},
    "layer scale": {"init_values": 0.5},
    "stochastic depth": {"drop_path_rate": 0.5},
}
TAPS = Taps(hidden=frozenset({0, 1}), output=True)
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the kernels need Triton"
)
BACKENDS = ["sdpa", "reference", pytest.param("triton", marks=needs_triton)]


def make(**options):
    sizes = {"img_size": 12, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
    net = ViT(name="vit_tiny_patch16_224", **sizes, **options)
    for weight in net.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.3)
    return net.double()


def make_plan(grid, lengths=LENGTHS):
    order = torch.rand(len(lengths), grid.num_cells).argsort(dim=1)
    return MaskPlan.from_lengths(order, lengths=torch.tensor(lengths), bounds=BOUNDS, grid=grid)


def noise_for(values):
    return GivenNoise({"drop_path": values})


def alone(net, x, plan, draws):
    """What each sample yields under a plan of its own."""
    found = []
    for i, num_visible in enumerate(plan.lengths.tolist()):
        order = torch.cat([plan.keep[i, :num_visible], plan.mask[i].nonzero()[:, 0]])[None]
        own = MaskPlan.from_order(order, num_visible=num_visible, grid=plan.grid)
        found.append(net(x[i : i + 1], own, noise_for(draws[i : i + 1]), TAPS))
    return found


def outputs(encoded, lengths):
    """All that counts, in a fixed order."""
    prefix = [] if encoded.prefix is None else list(encoded.prefix)
    layers = [encoded.at_layer(layer) for layer in sorted(encoded.hidden)]
    cells = [part.tokens[i, :n] for part in (encoded, *layers) for i, n in enumerate(lengths)]
    return torch.cat([*prefix, *cells])


def gradients(values, net, x):
    scale = torch.linspace(-1, 1, values.numel(), dtype=values.dtype).view_as(values)
    weights = [x, *(weight for weight in net.parameters() if weight.requires_grad)]
    return torch.autograd.grad((values * scale).sum(), weights)


def check(net, *, backend="sdpa", lengths=LENGTHS):
    set_attention(net, backend)
    x = torch.randn(len(lengths), 3, 12, 12, dtype=torch.float64, requires_grad=True)
    plan, draws = make_plan(net.spec.grid, lengths), torch.rand(len(lengths), 4)
    encoded = net(x, plan, noise_for(draws), TAPS)
    assert torch.equal(encoded.lengths, plan.lengths)
    assert encoded.tokens.shape == (len(lengths), BOUNDS[1], 32)
    assert not encoded.tokens[~encoded.counted].any()
    singles = alone(net, x, plan, draws)
    parts = [single.prefix[0] for single in singles]
    for layer in (None, 0, 1):
        located = singles if layer is None else [single.at_layer(layer) for single in singles]
        parts += [one.tokens[0] for one in located]
    found, expected = outputs(encoded, lengths), torch.cat(parts)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(gradients(found, net, x), gradients(expected, net, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", OPTIONS)
def test_samples_are_encoded_as_each_alone(name):
    check(make(**OPTIONS[name]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_implementation_of_attention_does_it(backend):
    check(make(), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_room_for_a_bound_changes_nothing(backend, monkeypatch):
    monkeypatch.setattr(ragged, "_counts_are_at_hand", lambda lengths: False)
    check(make(), backend=backend)


def test_recomputing_and_samples_of_one_length():
    net = make()
    net.set_grad_checkpointing()
    check(net, lengths=(6, 6))
    check(net, lengths=(1,))


def test_nothing_is_computed_to_make_samples_equally_long():
    net, seen = make(), []
    for block in net.blocks:
        block.norm1.register_forward_hook(lambda _, given, out: seen.append(out.shape))
    x = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    net(x, make_plan(net.spec.grid))
    assert seen == [(1, sum(LENGTHS) + 4, 32)] * 2


def test_masked_cells_are_replaced_as_ever():
    net, x = make(hidden="replace"), torch.randn(4, 3, 12, 12, dtype=torch.float64)
    plan = make_plan(net.spec.grid)
    encoded = net(x, plan)
    assert (encoded.lengths, encoded.ids) == (None, None)
    assert encoded.tokens.shape == (4, 9, 32)


def test_attention_of_packed_samples_is_refused():
    net, x = make(), torch.randn(4, 3, 12, 12, dtype=torch.float64)
    with pytest.raises(ValueError, match="can't be read where samples are packed"):
        net(x, make_plan(net.spec.grid), None, Taps(attention=frozenset({1}), output=True))


@pytest.mark.parametrize("exact", [True, False])
def test_layout_covers_every_visible_cell_once(exact, monkeypatch):
    monkeypatch.setattr(ragged, "_counts_are_at_hand", lambda lengths: exact)
    grid = Grid((3, 3), (4, 4))
    plan = make_plan(grid)
    layout = ragged.RaggedTokens.of(plan, num_prefix=2)
    total = sum(LENGTHS) if exact else len(LENGTHS) * BOUNDS[1]
    assert len(layout.cell) == total
    assert layout.order.sort().values.tolist() == list(range(total + 2 * len(LENGTHS)))
    cu = layout.packing.cu
    assert (cu[0], cu[-1]) == (0, len(layout.order))
    assert (cu.diff() >= 0).all()
    assert (cu.diff() <= layout.packing.longest).all()
    visible = list(zip(layout.sample.tolist(), layout.cell.tolist(), strict=True))[: sum(LENGTHS)]
    wanted = [(i, cell) for i, n in enumerate(LENGTHS) for cell in plan.keep[i, :n].tolist()]
    assert visible == wanted
