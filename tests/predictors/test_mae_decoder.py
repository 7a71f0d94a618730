import pytest
import torch
from torch import nn

from maskpre.encoders import plain
from maskpre.encoders.base import EncoderSpec
from maskpre.predictors.mae_decoder import MAEDecoder
from maskpre.types import Encoded, Grid, MaskPlan, Step, gather_tokens

GRID = Grid.over((12, 8), (4, 4))
VISIBLE = 2


def spec(*, prefix=1, hidden="drop"):
    return EncoderSpec(
        embed_dim=10, grid=GRID, out_grid=GRID, num_prefix_tokens=prefix, in_chans=3, hidden=hidden
    )


def make(*, prefix=1, region="masked", hidden="drop", depth=2, **options):
    torch.manual_seed(0)
    encoder = spec(prefix=prefix, hidden=hidden)
    decoder = MAEDecoder(
        encoder=encoder, out_dim=7, region=region, embed_dim=16, depth=depth, num_heads=4, **options
    ).double()
    for weight in decoder.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.4)
    return decoder


def encoded(*, prefix=1, hidden="drop"):
    """Tokens under a random plan of three samples."""
    torch.manual_seed(1)
    plan = MaskPlan.from_order(torch.rand(3, 6).argsort(dim=1), num_visible=VISIBLE, grid=GRID)
    count, ids = (VISIBLE, plan.keep) if hidden == "drop" else (6, None)
    tokens = torch.randn(3, count, 10, dtype=torch.float64, requires_grad=True)
    first = torch.randn(3, prefix, 10, dtype=torch.float64) if prefix else None
    return Encoded(tokens, GRID, ids, prefix=first), plan


def reference(decoder, source, plan):
    """Predictions at all cells in raster order: place tokens, add positions, decode everything."""
    prefix = 0 if source.prefix is None else source.prefix.shape[1]
    rows = []
    for sample in range(len(source.tokens)):
        cells = [None if source.ids is None else decoder.mask_token[0, 0]] * 6
        ids = range(6) if source.ids is None else source.ids[sample].tolist()
        for token, cell in zip(source.tokens[sample], ids, strict=True):
            cells[cell] = decoder.embed(token)
        cells = torch.stack(cells) + decoder.pos_embed[0]
        first = [] if prefix == 0 else [decoder.embed(source.prefix[sample])]
        rows.append(torch.cat([*first, cells]))
    x = torch.stack(rows)
    for block in decoder.blocks:
        x = block(x)
    return decoder.pred(decoder.norm(x))[:, prefix:]


def run(decoder, source, plan):
    return decoder(source, plan, Step(batch={}, views={}, noise=None, progress=0.0))


@pytest.mark.parametrize("region", ["masked", "visible", "all"])
@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("hidden", ["drop", "replace"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_values_and_gradients(region, prefix, hidden, depth):
    decoder = make(prefix=prefix, region=region, hidden=hidden, depth=depth)
    source, plan = encoded(prefix=prefix, hidden=hidden)
    found, full = run(decoder, source, plan), reference(decoder, source, plan)
    expected = full if found.ids is None else gather_tokens(full, found.ids)
    torch.testing.assert_close(found.tokens, expected)
    weights = [source.tokens, *(weight for weight in decoder.parameters() if weight.requires_grad)]
    scale = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    ours, theirs = (
        torch.autograd.grad((out * scale).sum(), weights, allow_unused=True)
        for out in (found.tokens, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("hidden", ["drop", "replace"])
@pytest.mark.parametrize(("region", "count"), [("masked", 4), ("visible", 2), ("all", 6)])
def test_predicts_the_region_and_says_so(hidden, region, count):
    source, plan = encoded(hidden=hidden)
    found = run(make(region=region, hidden=hidden), source, plan)
    assert found.grid == GRID
    assert found.tokens.shape == (3, count, 7)
    if found.ids is None:
        assert (region, hidden, found.covers) == ("all", "replace", None)
        return
    assert found.covers == region
    cells = torch.zeros(3, 6, dtype=torch.bool).scatter_(1, found.ids, True)
    assert torch.equal(cells, plan.region(region))


def test_last_block_leaves_out_what_nobody_reads(monkeypatch):
    rows = []
    whole = plain.add_mlp
    monkeypatch.setattr(plain, "add_mlp", lambda x, *layers: rows.append(x.shape[1]) or whole(x, *layers))
    run(make(region="masked", depth=3), *encoded())
    assert rows == [1 + 6, 1 + 6, 4]


def test_first_block_projects_a_mask_token_once_per_cell(monkeypatch):
    rows = []
    whole = plain.norm_linear
    monkeypatch.setattr(
        plain, "norm_linear", lambda x, *layers: rows.append(x.shape[:-1]) or whole(x, *layers)
    )
    run(make(depth=2), *encoded())
    assert rows == [(3 * (1 + VISIBLE) + 6,), (3, 1 + 6)]


@pytest.mark.parametrize("region", ["masked", "all"])
def test_recomputing_gives_equal_gradients(region):
    decoder = make(region=region)
    source, plan = encoded()
    weights = [source.tokens, *(weight for weight in decoder.parameters() if weight.requires_grad)]
    found = []
    for recompute in (False, True):
        decoder.set_grad_checkpointing(recompute)
        found.append(torch.autograd.grad(run(decoder, source, plan).tokens.square().sum(), weights))
    for kept, again in zip(*found, strict=True):
        assert torch.equal(kept, again)


def test_hooks_in_the_first_block_are_heard():
    decoder, heard = make(), []
    source, plan = encoded()
    before = run(decoder, source, plan).tokens
    decoder.blocks[0].attn.qkv.register_forward_hook(lambda *_: heard.append("qkv"))
    torch.testing.assert_close(run(decoder, source, plan).tokens, before)
    assert heard == ["qkv"]


def test_position_tables_differ_in_which_index_comes_first():
    column, row = (make(position=name).pos_embed[0] for name in ("sincos", "sincos_row_first"))
    assert not torch.equal(column, row)
    torch.testing.assert_close(column[:, :8], row[:, 8:])
    assert not make().pos_embed.requires_grad


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"num_heads.*5.*16"):
        MAEDecoder(encoder=spec(), out_dim=7, region="masked", embed_dim=16, depth=1, num_heads=5)
