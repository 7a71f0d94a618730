import math

import pytest
import timm
import torch

from maskpre.encoders.vit import ViT
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.types import Grid, gather_tokens

NAME = "vit_tiny_patch16_224"
SMALL = {"name": NAME, "img_size": 24, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4}
VARIANTS = [
    {},
    {"class_token": False},
    {"reg_tokens": 3},
    {"init_values": 0.5},
    {"position": "learned"},
    {"position": "none"},
    {"position": "sincos_row_first", "in_chans": 1},
    {"name": "vit_small_patch14_reg4_dinov2", "position": "learned"},
    {"name": "vit_base_patch16_clip_224", "position": "learned"},
    {"class_token": False, "reg_tokens": 2, "position": "learned"},
]


def keyed(index: list[int]) -> KeyedNoise:
    return KeyedNoise(seed=0, epoch=torch.zeros(len(index), dtype=torch.int64), index=torch.tensor(index))


def stir(encoder):
    """Give every learnt parameter a value that matters; fresh biases and tokens are small or zero."""
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def timms(encoder, sizes):
    """The timm model of the same sizes and weights."""
    options = {key: value for key, value in sizes.items() if key not in ("name", "position", "hidden")}
    if sizes.get("position") == "none":
        options["pos_embed"] = "none"
    net = timm.create_model(sizes["name"], num_classes=0, global_pool="", **options).eval()
    net.load_state_dict({key: value for key, value in encoder.state_dict().items() if key != "mask_token"})
    return net


@pytest.mark.parametrize("changes", VARIANTS)
def test_features_are_timms_for_the_same_weights(changes):
    sizes = {**SMALL, **changes}
    encoder = stir(ViT(**sizes)).eval()
    net = timms(encoder, sizes)
    x = torch.randn(2, sizes.get("in_chans", 3), 24, 24)
    expected, encoded = net.forward_features(x), encoder(x)
    assert encoded.ids is None
    assert encoder.spec.num_prefix_tokens == net.num_prefix_tokens
    torch.testing.assert_close(torch.cat([encoded.prefix, encoded.tokens], 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS)
def test_dropping_is_attention_among_the_visible(random_plan, changes):
    sizes = {**SMALL, **changes}
    encoder = stir(ViT(**sizes)).eval()
    net = timms(encoder, sizes).double()
    encoder.double()
    plan = random_plan(encoder.spec.grid, batch=3, num_visible=11)
    x = torch.randn(3, encoder.spec.in_chans, 24, 24, dtype=torch.float64)
    encoded = encoder(x, plan)
    assert encoded.ids is plan.keep
    assert (encoded.grid, encoded.covers) == (encoder.spec.out_grid, "visible")

    # All tokens through timm's model, with attention to hidden ones forbidden.
    prefix = net.num_prefix_tokens
    hidden = torch.nn.functional.pad(plan.mask, (prefix, 0))[:, None, None]
    forbidden = torch.zeros(hidden.shape, dtype=x.dtype).masked_fill(hidden, -torch.inf)
    tokens = net.norm_pre(net._pos_embed(net.patch_embed(x)))
    for block in net.blocks:
        tokens = block(tokens, attn_mask=forbidden)
    expected = net.norm(tokens)
    torch.testing.assert_close(encoded.prefix, expected[:, :prefix])
    torch.testing.assert_close(encoded.tokens, gather_tokens(expected[:, prefix:], plan.keep))


def test_dropping_an_embedding_with_a_stem_takes_the_same_tokens(random_plan):
    encoder = ViT(**SMALL, position="none").eval()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=7)
    x = torch.randn(2, 3, 24, 24)
    plain = encoder(x, plan).tokens

    class Stem(type(encoder.patch_embed)):
        pass

    encoder.patch_embed.__class__ = Stem
    torch.testing.assert_close(encoder(x, plan).tokens, plain)


def test_hidden_pixels_have_no_influence_where_a_token_replaces_them(random_plan):
    encoder = stir(ViT(**SMALL, hidden="replace")).eval()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=12)
    x = torch.randn(2, 3, 24, 24)
    hidden = plan.mask.unflatten(1, (6, 6)).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    encoded = encoder(x, plan)
    assert (encoded.ids, encoded.tokens.shape) == (None, (2, 36, 32))
    torch.testing.assert_close(encoded.tokens, encoder(x + 5 * hidden, plan).tokens)
    assert not torch.allclose(encoded.tokens, encoder(x + 5 * ~hidden, plan).tokens)


def test_the_mask_token_gets_the_place_of_what_it_replaces(random_plan):
    encoder = stir(ViT(**SMALL, hidden="replace", class_token=False)).eval()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=12)
    x = torch.randn(2, 3, 24, 24)
    tokens = encoder.patch_embed(x)
    tokens[plan.mask] = encoder.mask_token[0, 0]
    tokens = tokens + encoder.pos_embed
    for block in encoder.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(encoder(x, plan).tokens, encoder.norm(tokens), rtol=1e-4, atol=1e-5)


def test_sincos_table_is_maes():
    encoder = ViT(**SMALL, reg_tokens=2)
    table = encoder.pos_embed
    assert not table.requires_grad
    assert table.shape == (1, 3 + 36, 32)
    assert not table[:, :3].any()
    # Width 32: a quarter each for sin and cos of the column, then of the row.
    row, column = 4, 2
    found = table[0, 3 + row * 6 + column]
    omega = [10000 ** (-k / 8) for k in range(8)]
    halves = [[f(place * w) for w in omega] for place in (column, row) for f in (math.sin, math.cos)]
    torch.testing.assert_close(found, torch.tensor(halves).flatten())
    other = ViT(**SMALL, position="sincos_row_first").pos_embed[0, 1 + row * 6 + column]
    torch.testing.assert_close(other, torch.tensor(halves[2:] + halves[:2]).flatten())


def test_positions_are_learnt_only_where_asked():
    assert ViT(**SMALL, position="learned").pos_embed.requires_grad
    assert ViT(**SMALL, position="none").pos_embed is None


def test_stochastic_depth_belongs_to_the_sample():
    encoder = stir(ViT(**SMALL, drop_path_rate=0.5)).train()
    x = torch.randn(4, 3, 24, 24)
    together = encoder(x, noise=keyed([7, 8, 9, 10])).tokens
    alone = encoder(x[2:3], noise=keyed([9])).tokens
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone, encoder(x[2:3]).tokens)
    torch.testing.assert_close(
        encoder.eval()(x, noise=keyed([7, 8, 9, 10])).tokens, encoder(x).tokens, rtol=0, atol=0
    )


def test_stochastic_depth_drops_a_branch_or_scales_it_up():
    encoder = stir(ViT(**SMALL, init_values=0.5, drop_path_rate=0.4)).train()
    last, seen = encoder.blocks[-1], []
    draws = torch.tensor([[0.9, 0.9, 0.9, 0.9, 0.1, 0.9]])
    for part in (last.norm1, encoder.norm):
        part.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(torch.randn(1, 3, 24, 24), noise=GivenNoise({"drop_path": draws}))
    before, after = seen
    expected = before + last.ls2(last.mlp(last.norm2(before))) / 0.6
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


def test_share_of_dropped_branches_rises_linearly():
    encoder = ViT(**SMALL, drop_path_rate=0.3)
    assert encoder._drop_path == pytest.approx([0.0, 0.15, 0.3])


@pytest.mark.parametrize("hidden", ["replace", "drop"])
def test_recomputed_activations_give_the_same_gradients(random_plan, hidden):
    encoder = stir(ViT(**SMALL, drop_path_rate=0.3, hidden=hidden)).double().train()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=12)
    x, grads = torch.randn(2, 3, 24, 24, dtype=torch.float64), []
    for recompute in (False, True):
        encoder.set_grad_checkpointing(recompute)
        encoder.zero_grad()
        encoder(x, plan, keyed([0, 1])).tokens.square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.requires_grad})
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], msg=name)


def test_spec():
    spec = ViT(**SMALL, reg_tokens=2, in_chans=2, hidden="replace").spec
    assert spec.grid == spec.out_grid == Grid((6, 6), (4, 4))
    assert (spec.embed_dim, spec.num_prefix_tokens, spec.in_chans, spec.hidden) == (32, 3, 2, "replace")


def test_initialisation_is_maes():
    encoder = ViT(**{**SMALL, "embed_dim": 192, "num_heads": 3}, hidden="replace")
    block = encoder.blocks[1]
    for weight, fans in [
        (block.attn.qkv.weight, 192 + 3 * 192),
        (block.mlp.fc2.weight, 768 + 192),
        (encoder.patch_embed.proj.weight, 48 + 192),
    ]:
        bound = math.sqrt(6 / fans)
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert not block.attn.qkv.bias.any()
    assert encoder.patch_embed.proj.bias.any()
    for token in (encoder.cls_token, encoder.mask_token):
        assert token.std().item() == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vit_nano_patch16"}, "timm has no model 'vit_nano_patch16'; the nearest names: .*vit_"),
        (
            {"name": "swin_tiny_patch4_window7_224"},
            "timm can't build 'swin_tiny_patch4_window7_224' as a Vis",
        ),
        (
            {"name": "deit_tiny_distilled_patch16_224"},
            "as a VisionTransformer with .* distillation tokens",
        ),
        ({"img_size": 25}, r"img_size \(25\) must be a multiple of the patch size \(4, 4\)"),
        ({"num_heads": 5}, r"num_heads \(5\) must divide embed_dim \(32\)"),
        ({"embed_dim": 30, "num_heads": 3}, "needs a width divisible by 4, got 30"),
    ],
)
def test_impossible_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ViT(**{**SMALL, **changes})


def test_stochastic_depth_needs_blocks_that_have_it():
    with pytest.raises(ValueError, match=r"drop_path_rate 0\.1: '.*' has blocks without stochastic depth"):
        ViT(name="vit_base_patch16_xp_224", img_size=32, depth=1, drop_path_rate=0.1)


@pytest.mark.parametrize("hidden", ["replace", "drop"])
def test_a_picture_of_another_size_is_refused(random_plan, hidden):
    encoder = ViT(**SMALL, hidden=hidden)
    plan = random_plan(encoder.spec.grid, batch=1, num_visible=9)
    with pytest.raises(ValueError, match=r"picture of \(32, 32\) pixels, expected \(24, 24\)"):
        encoder(torch.zeros(1, 3, 32, 32), plan)


@pytest.mark.parametrize("class_token", [True, False])
def test_secondary_masking_blanks_its_share_of_what_is_seen(class_token):
    encoder = stir(ViT(**SMALL, secondary_ratio=0.25, class_token=class_token)).eval()
    x, noise = torch.rand(2, 3, 24, 24), keyed([5, 9])
    blank = noise.uniform("secondary_all", 36).argsort(dim=1) >= 27
    assert blank.sum(dim=1).tolist() == [9, 9]
    pixels = blank.unflatten(1, (6, 6)).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)[:, None]
    clean = encoder(x, None, noise).tokens
    # What is blanked isn't read.
    torch.testing.assert_close(encoder(torch.where(pixels, 0.0, x), None, noise).tokens, clean)
    assert not torch.allclose(encoder(torch.where(pixels, x, 0.0), None, noise).tokens, clean)
    # Without noise nothing is blanked.
    assert not torch.allclose(encoder(x).tokens, clean)


@pytest.mark.parametrize(("ratio", "hidden"), [(1.0, "drop"), (-0.1, "drop"), (0.5, "replace")])
def test_impossible_secondary_ratios_are_refused(ratio, hidden):
    with pytest.raises(ValueError, match="secondary_ratio"):
        ViT(**SMALL, secondary_ratio=ratio, hidden=hidden)
