import pytest
import torch
from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.ops.noise import GivenNoise
from maskpre.predictors.dynamic_alignment import DynamicAlignment
from maskpre.targets.base import Layers
from maskpre.types import Encoded, Grid, MaskPlan, Step

GRID = Grid((2, 3), (8, 8))
STEP = Step(batch={}, views={}, noise=GivenNoise({}), progress=0.0)
LAYERS = Layers((2, 3), 3)


def spec(hidden="drop", **options):
    known = {"num_layers": 3, "layer_dim": 8, **options}
    return EncoderSpec(
        embed_dim=8, grid=GRID, out_grid=GRID, num_prefix_tokens=1, in_chans=3, hidden=hidden, **known
    )


def alignment(layers=LAYERS, encoder=None, region="visible+cls", **options):
    torch.manual_seed(0)
    made = DynamicAlignment(
        encoder=encoder or spec(), out_dim=10, region=region, target_layers=layers, **options
    )
    return made.double()


def plan_and_encoded(hidden="drop"):
    torch.manual_seed(1)
    plan = MaskPlan.from_order(torch.rand(2, 6).argsort(dim=1), num_visible=4, grid=GRID)
    tokens = 4 if hidden == "drop" else 6
    layers = {layer: torch.randn(2, 1 + tokens, 8, dtype=torch.float64) for layer in (1, 2, 3)}
    ids, covers = (plan.keep, "visible") if hidden == "drop" else (None, None)
    return plan, Encoded(layers[3][:, 1:], GRID, ids, covers=covers, prefix=layers[3][:, :1], hidden=layers)


def head_by_hand(kind, head, x):
    if kind == "linear":
        return nn.functional.linear(x, head.weight, head.bias)
    first, *middle, last = head
    if kind == "norm_linear":
        return last(nn.functional.layer_norm(x, (8,), first.weight, first.bias, 1e-6))
    x = first(x)
    if kind == "mlp":
        return last(nn.functional.gelu(x))
    return last(nn.functional.layer_norm(x, (8,), middle[0].weight, middle[0].bias, 1e-6))


@pytest.mark.parametrize("kind", ["linear", "norm_linear", "mlp", "mlp2"])
@pytest.mark.parametrize("fusion", ["linear", "sum", "simple"])
def test_it_is_the_papers_sum_and_head(fusion, kind) -> None:
    made = alignment(fusion=fusion, head=kind)
    plan, encoded = plan_and_encoded()
    if made.mixing is not None:
        nn.init.normal_(made.mixing)
    found = made(encoded, plan, STEP)
    for place, layer in enumerate((2, 3)):
        if fusion == "simple":
            mixed = encoded.hidden[layer]
        else:
            mixed = sum(made.mixing[layer - 1, b - 1] * encoded.hidden[b] for b in (1, 2, 3))
        expected = head_by_hand(kind, made.heads[str(layer - 1)], mixed)
        torch.testing.assert_close(found.with_class()[:, :, 5 * place : 5 * place + 5], expected)
    assert found.ids is plan.keep
    assert found.covers == "visible"


def test_it_starts_as_published() -> None:
    assert torch.allclose(alignment().mixing, torch.eye(3).double() + 0.01)
    deep = alignment(Layers((1, 5), 5), fusion="sum")
    assert torch.allclose(deep.mixing, torch.full((5, 3), 1 / 3).double())
    assert alignment(fusion="simple").mixing is None
    head = alignment().heads["1"]
    assert not head.bias.any()
    assert head.weight.abs().max() <= (6 / (8 + 5)) ** 0.5


def test_only_counted_layers_have_heads_and_ask_for_layers() -> None:
    assert list(alignment().heads) == ["1", "2"]
    assert alignment().taps.hidden == {1, 2, 3}
    assert not alignment().taps.output
    assert alignment(fusion="simple").taps.hidden == {2, 3}


@pytest.mark.parametrize("region", ["visible", "masked", "visible+cls"])
def test_where_every_cell_has_a_token_it_takes_those_of_the_region(region) -> None:
    made = alignment(encoder=spec("replace"), region=region)
    plan, encoded = plan_and_encoded("replace")
    everywhere = alignment(encoder=spec("replace"), region="all")(encoded, plan, STEP)
    found = made(encoded, plan, STEP)
    ids = plan.hide if region == "masked" else plan.keep
    rows = torch.arange(2)[:, None]
    torch.testing.assert_close(found.tokens, everywhere.tokens[rows, ids])
    assert (found.prefix is not None) == region.endswith("cls")


@pytest.mark.parametrize(
    ("encoder", "layers", "options", "message"),
    [
        (spec(), None, {}, "predicts hidden layers of another network, and the target is none"),
        (spec(num_layers=0), LAYERS, {}, "mixes hidden layers, which the encoder doesn't give"),
        (spec(num_layers=4), LAYERS, {}, "fusion=linear needs .* they have 4 and 3 layers; use fusion=sum"),
        (spec(num_layers=4), LAYERS, {"fusion": "simple"}, "fusion=simple needs an encoder as deep"),
        (spec(), LAYERS, {"region": "masked"}, "predicts only where the encoder gives tokens"),
    ],
)
def test_what_cannot_be_aligned_is_refused(encoder, layers, options, message) -> None:
    given = {"region": "visible+cls", **options}
    with pytest.raises(ValueError, match=message):
        DynamicAlignment(encoder=encoder, out_dim=10, target_layers=layers, **given)
