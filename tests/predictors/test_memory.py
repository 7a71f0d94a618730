from functools import partial

import pytest
import torch
from torch.nn.functional import gelu, linear

from maskpre.encoders.vit import ViT
from maskpre.ops.noise import GivenNoise
from maskpre.predictors.linear import LinearPredictor
from maskpre.predictors.mae_decoder import MAEDecoder
from maskpre.predictors.memory import MemoryPredictor
from maskpre.types import Encoded, Step

ENCODER = ViT(name="vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2).spec
STEP = Step(batch={}, views={}, noise=GivenNoise({}), progress=0.0)


def make(inner=LinearPredictor, region="all", **options):
    torch.manual_seed(0)
    given = {"size": 5, **options}
    return MemoryPredictor(encoder=ENCODER, out_dim=6, region=region, predictor=inner, **given).double()


def encoded():
    tokens = torch.randn(2, 16, 16, dtype=torch.float64)
    return Encoded(tokens, ENCODER.out_grid, prefix=torch.randn(2, 1, 16, dtype=torch.float64))


def test_predictions_are_means_of_the_rows():
    memory, given = make(), encoded()
    found = memory(given, None, STEP)
    x = memory.predictor(given, None, STEP).tokens
    for layer in (0, 2):
        x = gelu(linear(x, memory.head[layer].weight, memory.head[layer].bias))
    weights = linear(x, memory.head[4].weight, memory.head[4].bias).softmax(dim=-1)
    torch.testing.assert_close(found.tokens, torch.einsum("bnm,md->bnd", weights, memory.memory))
    assert memory.memory.shape == (5, 6)
    assert [layer.out_features for layer in memory.head[::2]] == [6, 6, 5]


def test_everything_learns():
    memory = make()
    memory(encoded(), None, STEP).tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in memory.parameters())


def test_the_class_token_is_looked_up_too():
    memory = make(region="all+cls")
    found = memory(encoded(), None, STEP)
    assert found.prefix.shape == (2, 1, 6)
    rows = memory.memory
    assert (found.prefix.amax() <= rows.amax()) & (found.prefix.amin() >= rows.amin())


def test_what_the_inner_predictor_says_of_itself():
    decoder = partial(MAEDecoder, embed_dim=8, depth=1, num_heads=2, input_of="main")
    memory = make(decoder)
    assert (memory.input_of, memory.input_dim, memory.takes_ragged) == ("main", 8, True)
    with pytest.raises(ValueError, match="predicts only where the encoder gives tokens"):
        make(region="masked")
    with pytest.raises(ValueError, match="size must be at least 2 rows, got 1"):
        make(size=1)
