import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from maskpre.ops import dense
from maskpre.ops.dense import add_linear, add_mlp, norm_linear


@pytest.fixture
def layers():
    torch.manual_seed(0)
    parts = nn.ModuleDict(
        {
            "norm": nn.LayerNorm(12, eps=1e-3),
            "fc1": nn.Linear(12, 40),
            "fc2": nn.Linear(40, 12),
            "bare": nn.Linear(12, 12, bias=False),
        }
    ).double()
    for weight in parts.parameters():
        nn.init.normal_(weight, std=0.5)
    return parts


PAIRS = {
    "norm_linear": (lambda p, x: norm_linear(x, p.norm, p.fc1), lambda p, x: p.fc1(p.norm(x))),
    "norm_linear without bias": (lambda p, x: norm_linear(x, p.norm, p.bare), lambda p, x: p.bare(p.norm(x))),
    "add_linear": (lambda p, x: add_linear(x.sin(), p.bare, x), lambda p, x: x + p.bare(x.sin())),
    "add_mlp": (
        lambda p, x: add_mlp(x, p.norm, p.fc1, p.fc2),
        lambda p, x: x + p.fc2(gelu(p.fc1(p.norm(x)))),
    ),
}


class Named:
    """The layers as attributes."""

    def __init__(self, parts):
        self.__dict__.update(parts.items())


def values(parts, x, function):
    """Output and all gradients under an arbitrary incoming gradient."""
    x = x.detach().requires_grad_()
    parts.zero_grad()
    out = function(Named(parts), x)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weight).sum().backward()
    return [out, x.grad, *(weight.grad for weight in parts.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(2, 3, 12), (700, 12), (1, 1, 12)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_are_the_plain_layers(layers, monkeypatch, name, shape, dtype):
    monkeypatch.setattr(dense, "PIECE_BYTES", 1)
    ours, plain = PAIRS[name]
    x = torch.randn(shape, dtype=torch.float64)
    expected = values(layers, x, plain)
    found = values(layers.to(dtype), x.to(dtype), ours)
    assert len(found) == len(expected)
    for ours_value, plain_value in zip(found, expected, strict=True):
        assert ours_value.is_contiguous()
        error = (ours_value.double() - plain_value).abs().max()
        # In float32 the sums over 700 rows cancel to about their rounding error.
        assert error <= (1e-12 if dtype is torch.float64 else 1e-3) * (1 + plain_value.abs().max())


def test_pieces_cover_all_rows_once(monkeypatch):
    monkeypatch.setattr(dense, "PIECE_BYTES", 1000 * 8)
    rows = [row for piece in dense._pieces(2500, 8) for row in range(2500)[piece]]
    assert rows == list(range(2500))
    assert len(dense._pieces(2500, 8)) == 3


@pytest.mark.parametrize("name", PAIRS)
def test_strided_input_and_expanded_gradient(layers, name):
    ours, plain = PAIRS[name]
    x = torch.randn(4, 5, 24, dtype=torch.float64)[:, 1:4, ::2]
    for function in (ours, plain):
        layers.zero_grad()
        leaf = x.clone().requires_grad_()
        function(Named(layers), leaf.expand(4, 3, 12)).sum().backward()
        if function is ours:
            found = leaf.grad
    torch.testing.assert_close(found, leaf.grad)


def test_without_gradients_nothing_is_kept(layers):
    x = torch.randn(6, 12, dtype=torch.float64)
    with torch.no_grad():
        out = add_mlp(x, layers["norm"], layers["fc1"], layers["fc2"])
    assert out.grad_fn is None


def test_frozen_layers_get_no_gradient(layers):
    layers.requires_grad_(False)
    x = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    add_mlp(
        norm_linear(x, layers["norm"], layers["bare"]), layers["norm"], layers["fc1"], layers["fc2"]
    ).sum().backward()
    assert x.grad is not None
    assert all(weight.grad is None for weight in layers.parameters())


def test_autocast_takes_the_plain_layers(layers):
    layers.float()
    x = torch.randn(6, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm_linear(x, layers["norm"], layers["fc1"]).dtype is torch.bfloat16
