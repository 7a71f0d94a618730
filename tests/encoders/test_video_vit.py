import math

import pytest
import timm
import torch
from torch.nn.functional import normalize

from maskpre.encoders.video_vit import VideoViT
from maskpre.ops.noise import KeyedNoise
from maskpre.ops.positions import sincos_flat
from maskpre.types import Grid, MaskPlan, Taps

SMALL = {"img_size": 16, "num_frames": 6, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
SWITCHES = [
    {},
    {"qkv_bias": "all"},
    {"qkv_bias": "none"},
    {"scores": "cosine"},
    {"init_values": 0.3},
    {"position": "learned"},
    {"position": "none", "tubelet_size": 3, "mlp_ratio": 48 / 11},
]


def make(**changes):
    torch.manual_seed(0)
    encoder = VideoViT(**{**SMALL, **changes}).double()
    for name, parameter in encoder.named_parameters():
        if name != "pos_embed":
            torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def clip():
    return torch.randn(2, 3, 6, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def attend(attn, x):
    """Multi-head attention written out, with the switches of `attn`."""
    b, n, d = x.shape
    qkv = x @ attn.qkv.weight.T
    if attn.qkv.bias is not None:
        query, key, value = attn.qkv.bias.chunk(3)
        key = torch.zeros_like(key) if type(attn.qkv).__name__ == "KeylessLinear" else key
        qkv = qkv + torch.cat([query, key, value])
    q, k, v = qkv.view(b, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    if hasattr(attn, "logit_scale"):
        scores = normalize(q, dim=-1) @ normalize(k, dim=-1).mT * attn.logit_scale.clamp(max=4.6052).exp()
    else:
        scores = q @ k.mT / math.sqrt(d // attn.num_heads)
    return attn.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d))


def reference(encoder, x):
    tokens = encoder.patch_embed.proj(x).flatten(2).mT
    tokens = tokens if encoder.pos_embed is None else tokens + encoder.pos_embed
    for block in encoder.blocks:
        tokens = tokens + block.ls1(attend(block.attn, block.norm1(tokens)))
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return encoder.norm(tokens)


@pytest.mark.parametrize("switches", SWITCHES)
def test_tokens_of_whole_clips(switches):
    encoder = make(**switches)
    torch.testing.assert_close(encoder(clip()).tokens, reference(encoder, clip()))


def test_hooked_cosine_attention_gives_the_same():
    encoder = make(scores="cosine")
    expected = encoder(clip()).tokens
    encoder.blocks[1].attn.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(encoder(clip()).tokens, expected)


def test_visible_tubelets_are_embedded_where_they_are():
    encoder = make()
    grid = encoder.spec.grid
    assert grid == Grid((3, 2, 2), (2, 8, 8))
    plan = MaskPlan.from_order(torch.rand(2, 12).argsort(dim=1), num_visible=5, grid=grid)
    tokens = encoder._embed(clip(), plan, None, plan.keep, None)
    every = encoder._embed(clip(), None, None, None, None)
    torch.testing.assert_close(
        tokens, torch.stack([row[ids] for row, ids in zip(every, plan.keep, strict=True)])
    )
    encoded = encoder(clip(), plan)
    assert torch.equal(encoded.ids, plan.keep)
    assert encoded.tokens.shape == (2, 5, 24)


def test_hidden_tubelets_never_matter():
    encoder = make()
    plan = MaskPlan.from_order(torch.rand(2, 12).argsort(dim=1), num_visible=5, grid=encoder.spec.grid)
    pixels = plan.at(Grid((6, 16, 16), (1, 1, 1))).view(2, 1, 6, 16, 16)
    spoilt = torch.where(pixels, float("nan"), clip())
    assert torch.equal(encoder(spoilt, plan).tokens, encoder(clip(), plan).tokens)


def test_keys_never_get_a_bias():
    encoder = VideoViT(**SMALL).double()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1)
    for _ in range(3):
        encoder(clip()).tokens[:, 0].square().sum().backward()
        optimizer.step()
    for block in encoder.blocks:
        query, key, value = block.attn.qkv.bias.chunk(3)
        assert query.abs().min() > 0
        assert value.abs().min() > 0
        assert torch.equal(key, torch.zeros_like(key))


def test_names_are_timms_but_for_the_embedding():
    names = timm.create_model(
        "vit_base_patch16_224",
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=0,
        global_pool="",
        class_token=False,
    ).state_dict()
    ours = VideoViT(**SMALL).state_dict()
    assert set(ours) == set(names) - {"pos_embed"}
    different = {name for name, value in ours.items() if value.shape != names[name].shape}
    assert different == {"patch_embed.proj.weight"}


def test_published_initialisation():
    torch.manual_seed(0)
    encoder = VideoViT(**{**SMALL, "embed_dim": 96, "init_values": 0.1, "hidden": "replace"})
    fan_in = 3 * 2 * 8 * 8
    assert encoder.patch_embed.proj.weight.std().item() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.02)
    assert encoder.patch_embed.proj.bias.abs().max() > 0
    weight = encoder.blocks[0].mlp.fc1.weight
    assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / (96 + 384)), rel=1e-2)
    assert encoder.mask_token.abs().max() <= 0.02
    assert encoder.blocks[0].attn.qkv.bias.abs().max() == 0
    assert encoder.blocks[0].ls1.gamma.unique().tolist() == [pytest.approx(0.1)]


def test_positions_alternate_sines_and_cosines():
    table = sincos_flat(5, 6)
    for index in range(5):
        for j in range(6):
            angle = index / 10000 ** (2 * (j // 2) / 6)
            expected = math.cos(angle) if j % 2 else math.sin(angle)
            assert table[index, j].item() == pytest.approx(expected, abs=1e-7)


def test_drop_path_depends_on_the_sample_alone():
    encoder = make(drop_path_rate=0.5).train()
    noise = KeyedNoise(0, torch.zeros(2, dtype=torch.int64), torch.tensor([3, 8]))
    first, second = encoder(clip(), None, noise).tokens, encoder(clip(), None, noise).tokens
    assert torch.equal(first, second)
    assert not torch.equal(first, encoder.eval()(clip(), None, noise).tokens)


def test_hidden_layers_can_be_read():
    encoder = make()
    tapped = encoder(clip(), None, None, Taps(hidden=frozenset({1}), output=True))
    assert tapped.at_layer(1).tokens.shape == (2, 12, 24)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"num_frames": 5}, r"num_frames \(5\) must be a multiple of tubelet_size \(2\)"),
        ({"img_size": 20}, r"img_size \(20\) must be a multiple"),
        ({"num_heads": 5}, r"num_heads \(5\) must divide embed_dim \(24\)"),
        ({"qkv_bias": "keys"}, "qkv_bias must be 'all', 'no_key' or 'none', got 'keys'"),
        ({"scores": "angle"}, "scores must be 'dot' or 'cosine', got 'angle'"),
        ({"position": "sin"}, "position must be 'sincos', 'learned' or 'none', got 'sin'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, told):
    with pytest.raises(ValueError, match=told):
        VideoViT(**{**SMALL, **sizes})


def test_other_clip_sizes_are_refused():
    with pytest.raises(ValueError, match=r"clip of .*\(4, 16, 16\) pixels, expected \(6, 16, 16\)"):
        make()(torch.zeros(1, 3, 4, 16, 16, dtype=torch.float64))
