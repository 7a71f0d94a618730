from dataclasses import replace

import pytest
import torch
from torch import nn

from maskpre.encoders.base import EncoderSpec
from maskpre.ops.noise import KeyedNoise
from maskpre.predictors.mae_decoder import MAEDecoder
from maskpre.predictors.video_decoder import VideoDecoder
from maskpre.types import Encoded, Grid, MaskPlan, Step, gather_tokens

GRID = Grid((3, 2, 2), (2, 8, 8))
VISIBLE = 4
DECODE = torch.tensor([[0, 3, 5, 7, 11], [1, 2, 6, 8, 9]])


def spec(hidden="drop"):
    return EncoderSpec(embed_dim=10, grid=GRID, out_grid=GRID, num_prefix_tokens=0, in_chans=3, hidden=hidden)


def make(region="masked", hidden="drop", **options):
    torch.manual_seed(0)
    options = {"embed_dim": 12, "depth": 2, "num_heads": 3, **options}
    decoder = VideoDecoder(encoder=spec(hidden), out_dim=7, region=region, **options).double()
    for weight in decoder.parameters():
        nn.init.normal_(weight, std=0.4)
    return decoder


def encoded(hidden="drop"):
    torch.manual_seed(1)
    plan = MaskPlan.from_order(torch.rand(2, 12).argsort(dim=1), num_visible=VISIBLE, grid=GRID)
    ids = plan.keep if hidden == "drop" else None
    tokens = torch.randn(2, VISIBLE if hidden == "drop" else 12, 10, dtype=torch.float64)
    return Encoded(tokens, GRID, ids), plan


def run(decoder, source, plan, noise=None):
    return decoder(source, plan, Step(batch={}, views={}, noise=noise, progress=0.0))


def reference(decoder, source, fill):
    """Visible tokens, then a mask token per cell of `fill`, through whole blocks; values of the latter."""
    table = decoder.pos_embed[0]
    seen = decoder.embed(source.tokens) + table[source.ids]
    x = torch.cat([seen, decoder.mask_token + table[fill]], dim=1)
    for block in decoder.blocks:
        x = block(x)
    return decoder.pred(decoder.norm(x[:, -fill.shape[1] :]))


@pytest.mark.parametrize("region", ["masked", "decode&masked"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("switches", [{}, {"scores": "cosine", "init_values": 0.1}, {"qkv_bias": "none"}])
def test_predicts_where_it_has_mask_tokens(region, named, switches):
    decoder = make(region, **switches)
    source, plan = encoded()
    plan = replace(plan, decode=DECODE) if named else plan
    fill = DECODE if named else plan.hide
    found = run(decoder, source, plan)
    assert torch.equal(found.ids, fill)
    assert found.covers == ("decode" if named else region)
    torch.testing.assert_close(found.tokens, reference(decoder, source, fill))


def test_cells_that_nobody_decodes_take_no_part():
    """The decoder's own mask makes it cheaper: its sequence has the visible and its own cells alone."""
    decoder, (source, plan) = make(), encoded()
    lengths = []
    decoder.blocks[0].register_forward_hook(lambda module, args, out: lengths.append(args[0].shape[1]))
    run(decoder, source, plan)
    run(decoder, source, replace(plan, decode=DECODE))
    assert lengths == [12, VISIBLE + DECODE.shape[1]]


def test_visible_cells_are_read_where_they_are():
    decoder, (source, plan) = make("visible"), encoded()
    found = run(decoder, source, replace(plan, decode=DECODE))
    assert torch.equal(found.ids, plan.keep)


def test_an_encoder_that_replaces_leaves_nothing_to_fill():
    decoder, (source, plan) = make(hidden="replace"), encoded("replace")
    assert decoder.mask_token is None
    found, everything = run(decoder, source, plan), run(make("all", "replace"), source, plan)
    torch.testing.assert_close(found.tokens, gather_tokens(everything.tokens, found.ids))


def test_stochastic_depth_is_its_own_and_a_matter_of_the_sample():
    decoder, (source, plan) = make(drop_path_rate=0.6), encoded()
    noise = KeyedNoise(0, torch.zeros(2, dtype=torch.int64), torch.tensor([3, 8]))
    first, second = (run(decoder.train(), source, plan, noise).tokens for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, run(decoder.eval(), source, plan, noise).tokens)
    assert decoder._drop_path == [0.0, pytest.approx(0.6)]


def test_checkpoints_hold_no_table_and_the_bridge_has_no_bias():
    names = set(make().state_dict())
    assert "pos_embed" not in names
    assert {name for name in names if name.startswith("embed.")} == {"embed.weight"}


def test_published_initialisation():
    torch.manual_seed(0)
    wide = replace(spec(), embed_dim=300)
    decoder = VideoDecoder(encoder=wide, out_dim=7, region="masked", embed_dim=96, num_heads=3)
    assert decoder.embed.weight.std().item() == pytest.approx((1 / 3 / 300) ** 0.5, rel=0.02)
    assert decoder.mask_token.abs().max() <= 0.02
    assert decoder.blocks[0].mlp.fc1.weight.abs().max().item() == pytest.approx((6 / 480) ** 0.5, rel=0.02)


def test_activation_checkpointing_changes_nothing():
    source, plan = encoded()
    results = []
    for enable in (False, True):
        decoder = make()
        decoder.set_grad_checkpointing(enable)
        run(decoder, source, plan).tokens.square().sum().backward()
        results.append(decoder.embed.weight.grad)
    torch.testing.assert_close(*results)


def test_tables_of_pictures_are_refused_for_clips():
    with pytest.raises(ValueError, match="position 'sincos' is for pictures; for clips use 'sincos_flat'"):
        MAEDecoder(encoder=spec(), out_dim=7, region="masked", embed_dim=16, num_heads=4)
