from functools import partial

import pytest
import torch
from torch.nn.functional import layer_norm

from maskpre.encoders.base import EncoderSpec
from maskpre.ops.noise import GivenNoise
from maskpre.predictors.fused import FusedPredictor
from maskpre.predictors.linear import LinearPredictor
from maskpre.predictors.mae_decoder import MAEDecoder
from maskpre.types import Encoded, Grid, MaskPlan, Step

GRID = Grid((2, 2), (8, 8))
SPEC = EncoderSpec(
    embed_dim=8,
    grid=GRID,
    out_grid=GRID,
    num_prefix_tokens=1,
    in_chans=3,
    hidden="drop",
    num_layers=3,
    layer_dim=8,
)
DECODER = partial(MAEDecoder, embed_dim=8, depth=1, num_heads=2)


def fused(predictor, region, layers=(1, 3)):
    torch.manual_seed(0)
    made = FusedPredictor(encoder=SPEC, out_dim=5, region=region, layers=layers, predictor=predictor)
    return made.double()


def encoded_under(plan):
    torch.manual_seed(1)
    hidden = {layer: torch.randn(2, 3, 8, dtype=torch.float64) for layer in (1, 2, 3)}
    last = hidden[3]
    return Encoded(last[:, 1:], GRID, plan.keep, covers="visible", prefix=last[:, :1], hidden=hidden)


@pytest.mark.parametrize(("predictor", "region"), [(LinearPredictor, "visible"), (DECODER, "masked")])
def test_the_inner_predictor_is_given_the_joined_layers(predictor, region) -> None:
    made = fused(predictor, region)
    plan = MaskPlan.from_order(torch.tensor([[2, 0, 1, 3], [1, 3, 0, 2]]), num_visible=2, grid=GRID)
    encoded = encoded_under(plan)
    first, last = made.projections
    joined = layer_norm(first(encoded.hidden[1]) + last(encoded.hidden[3]), (8,), eps=1e-6)
    plain = Encoded(joined[:, 1:], GRID, plan.keep, covers="visible", prefix=joined[:, :1])
    step = Step(batch={}, views={}, noise=GivenNoise({}), progress=0.0)
    torch.testing.assert_close(made(encoded, plan, step).tokens, made.predictor(plain, plan, step).tokens)
    assert made.taps.hidden == {1, 3}


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden layers are 1 to 3 .* got \[2, 4\]"):
        fused(LinearPredictor, "visible", layers=(2, 4))
