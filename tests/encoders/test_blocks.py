import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from maskpre.config import compose
from maskpre.encoders.blocks import drop_path_rates, residual_scales, run_block, run_blocks
from maskpre.encoders.plain import PlainBlock
from maskpre.errors import ConfigError
from maskpre.ops.noise import GivenNoise

ODD = {
    "LayerScale": {"init_values": 0.3},
    "normalised queries": {"qk_norm": True},
    "no bias": {"qkv_bias": False},
    "tanh": {"act_layer": lambda: nn.GELU(approximate="tanh")},
    "ReLU": {"act_layer": nn.ReLU},
    "dropout": {"proj_drop": 0.1},
}


def make(**options):
    """A block in float64 whose every weight matters."""
    block = Block(12, 3, **{"qkv_bias": True, "norm_layer": nn.LayerNorm, **options}).double()
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.4)
    return block


def gradients(out, weights):
    scale = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out * scale).sum(), weights)


@pytest.mark.parametrize("read", [slice(None), slice(1, None), slice(2, 4), slice(-1, None)])
def test_block_by_parts_is_timms(read):
    block, x = make(), torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    assert PlainBlock.of(block) is not None
    weights = [x, *block.parameters()]
    found, expected = run_block(block, x, None, read=read), block(x)[:, read]
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(gradients(found, weights), gradients(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ODD)
def test_blocks_with_more_in_them_are_called_whole(name):
    block, x = make(**ODD[name]).eval(), torch.randn(2, 5, 12, dtype=torch.float64)
    assert PlainBlock.of(block) is None
    assert torch.equal(run_block(block, x, None, read=slice(2, None)), block(x)[:, 2:])


def test_hooks_on_layers_are_heard():
    block, heard = make(), []
    block.mlp.register_forward_hook(lambda *_: heard.append("mlp"))
    run_block(block, torch.randn(1, 3, 12, dtype=torch.float64), None)
    assert heard == ["mlp"]


@pytest.mark.parametrize("options", [{}, {"init_values": 0.3}])
def test_scales_weigh_the_residual_branches(options):
    block, x = make(**options), torch.randn(3, 5, 12, dtype=torch.float64)
    first, second = (torch.tensor(values)[:, None, None] for values in ([0.0, 1.0, 2.0], [0.0, 1.0, 0.5]))
    found = run_block(block, x, (first, second), read=slice(1, None))
    torch.testing.assert_close(found[0], x[0, 1:])
    torch.testing.assert_close(found[1], block(x)[1, 1:])
    middle = x[2:] + 2 * block.ls1(block.attn(block.norm1(x[2:])))
    torch.testing.assert_close(found[2:], (middle + 0.5 * block.ls2(block.mlp(block.norm2(middle))))[:, 1:])


def test_scales_follow_noise_and_rates():
    noise = GivenNoise({"drop_path": torch.tensor([[0.0, 0.0, 0.1, 0.9, 0.5, 0.49]])})
    scales = residual_scales(noise, [0.0, 0.25, 0.5], training=True)
    assert scales[0] is None
    assert [scale.item() for scale in scales[1]] == [0.0, pytest.approx(4 / 3)]
    assert [scale.item() for scale in scales[2]] == [2.0, 0.0]


def test_rates_rise_linearly():
    assert drop_path_rates(0.5, 3) == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("experiment", ["mae", "videomae", "simmim", "spark"])
@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_that_leave_nothing_are_refused(experiment, rate):
    with pytest.raises(ConfigError, match=rf"drop_path_rate must be in \[0, 1\), got {rate}"):
        compose([f"experiment={experiment}", f"encoder.drop_path_rate={rate}"])


@pytest.mark.parametrize(
    ("noise", "training", "rate"), [(None, True, 0.5), ("given", False, 0.5), ("given", True, 0.0)]
)
def test_no_scales_without_noise_training_or_rate(noise, training, rate):
    given = None if noise is None else GivenNoise({"drop_path": torch.rand(2, 4)})
    assert residual_scales(given, [rate, rate], training=training) == [None, None]


def test_recomputing_changes_no_value_and_no_gradient():
    blocks = nn.ModuleList([make(), make(init_values=0.1), make()])
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    scales = [None, (torch.ones(2, 1, 1), torch.zeros(2, 1, 1)), None]
    weights = [x, *(weight for weight in blocks.parameters())]
    kept, again = (run_blocks(blocks, x, scales, recompute=recompute) for recompute in (False, True))
    assert torch.equal(kept, again)
    for one, other in zip(
        torch.autograd.grad(kept.square().sum(), weights, allow_unused=True),
        torch.autograd.grad(again.square().sum(), weights, allow_unused=True),
        strict=True,
    ):
        assert one is other is None or torch.equal(one, other)


def test_recomputing_keeps_less():
    block, x = make(), torch.randn(4, 50, 12, dtype=torch.float64)

    def stored(recompute):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            run_blocks([block], x, [None], recompute=recompute)
        return sum(sizes)

    assert stored(True) < stored(False) / 5
