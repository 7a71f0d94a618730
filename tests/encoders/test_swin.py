import pytest
import timm
import torch

from maskpre.encoders.swin import Swin
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.ops.patchify import unpatchify
from maskpre.types import Grid

NAME = "swin_tiny_patch4_window7_224"
SMALL = {
    "name": NAME,
    "img_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
}


def keyed(index: list[int]) -> KeyedNoise:
    return KeyedNoise(seed=0, epoch=torch.zeros(len(index), dtype=torch.int64), index=torch.tensor(index))


@pytest.mark.parametrize("region", ["masked", "all"])
def test_loss_latent_and_gradients_are_the_official_ones(golden, check_golden, region):
    case = golden("swin")
    encoder = Swin(
        name=NAME,
        img_size=case.sizes["img_size"],
        **{key: case.sizes["encoder"][key] for key in ("patch_size", "embed_dim", "depths", "num_heads")},
        window_size=case.sizes["encoder"]["window_size"],
        mlp_ratio=case.sizes["encoder"]["mlp_ratio"],
    )
    step = check_golden(case, encoder, region)
    if region == "all":
        picture = unpatchify(step.predictions["student"]["main"].tokens, encoder.spec.out_grid)
        torch.testing.assert_close(picture.float(), case.outputs["pred"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"window_size": 7},
        {"window_size": 16},
        {"window_size": 3},
        {"img_size": 24, "depths": (1, 1, 2), "num_heads": (2, 2, 4), "window_size": 6},
        {"img_size": 28, "window_size": 7, "mlp_ratio": 2.5},
        {"in_chans": 1, "qkv_bias": False},
    ],
)
def test_features_are_timms_for_the_same_weights(sizes):
    sizes = {**SMALL, **sizes}
    encoder = Swin(**sizes).eval()
    torch.nn.init.normal_(encoder.layers[1].blocks[0].attn.relative_position_bias_table)
    net = timm.create_model(sizes.pop("name"), num_classes=0, global_pool="", **sizes).eval()
    missing = net.load_state_dict(
        {name: value for name, value in encoder.state_dict().items() if name != "mask_token"}
    )
    assert not missing.missing_keys
    x = torch.randn(2, sizes.get("in_chans", 3), sizes["img_size"], sizes["img_size"])
    torch.testing.assert_close(encoder(x).tokens, net.forward_features(x).flatten(1, 2))


@pytest.mark.parametrize("unit_size", [2, 4, 8])
@pytest.mark.parametrize("region", ["masked", "all"])
def test_loss_is_per_pixel_however_fine_the_units(simmim, unit_size, region):
    """Output cells are 4 pixels long: units of 2 cut them."""
    encoder = Swin(**SMALL)
    model = simmim(encoder, ratio=0.6, unit_size=unit_size, region=region)
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    step = model({"image": x}, noise=keyed([1, 2, 3]), progress=0.0)
    tokens = model.predictors["main"].pred(step.outputs["student"].tokens)
    picture = unpatchify(tokens, encoder.spec.out_grid)
    hidden = step.plans["student"].at(Grid((32, 32), (1, 1))).view(3, 1, 32, 32)
    expected = ((x - picture).abs() * hidden).sum() / (hidden.sum() + 1e-5) / 3
    torch.testing.assert_close(step.total, expected)


def test_windows_shrink_to_the_stage_and_lose_their_shift():
    encoder = Swin(**{**SMALL, "window_size": 12})
    first, second = (stage.blocks[1] for stage in encoder.layers)
    assert (first.window_size, first.shift_size) == ((12, 12), (6, 6))
    assert (second.window_size, second.shift_size) == ((8, 8), (0, 0))
    assert second.attn.relative_position_bias_table.shape == (15 * 15, 4)


def test_spec_names_both_grids():
    spec = Swin(**{**SMALL, "depths": (1, 1, 1), "num_heads": (2, 2, 2)}).spec
    assert spec.grid == Grid((16, 16), (2, 2))
    assert spec.out_grid == Grid((4, 4), (8, 8))
    assert (spec.embed_dim, spec.num_prefix_tokens, spec.in_chans, spec.hidden) == (64, 0, 3, "replace")


def test_hidden_pixels_have_no_influence(random_plan):
    encoder = Swin(**SMALL, position="learned").eval()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=100)
    x = torch.randn(2, 3, 32, 32)
    hidden = plan.mask.unflatten(1, (16, 16)).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    torch.testing.assert_close(encoder(x, plan).tokens, encoder(x + 5 * hidden, plan).tokens)
    assert not torch.allclose(encoder(x, plan).tokens, encoder(x + 5 * ~hidden, plan).tokens)


def test_mask_token_enters_after_the_patch_norm_and_before_the_position(random_plan):
    encoder = Swin(**SMALL, position="learned").eval()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=100)
    x = torch.randn(2, 3, 32, 32)
    embedded = encoder.patch_embed(x).flatten(1, 2)
    embedded[plan.mask] = encoder.mask_token[0, 0]
    embedded = embedded + encoder.absolute_pos_embed
    expected = encoder.norm(encoder.layers(embedded.unflatten(1, (16, 16)))).flatten(1, 2)
    torch.testing.assert_close(encoder(x, plan).tokens, expected)


def test_without_patch_norm_the_embedding_is_the_bare_convolution():
    encoder = Swin(**SMALL, patch_norm="none")
    assert not any(name.startswith("patch_embed.norm") for name in encoder.state_dict())
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(encoder.patch_embed(x), encoder.patch_embed.proj(x).permute(0, 2, 3, 1))


def test_stochastic_depth_belongs_to_the_sample():
    encoder = Swin(**SMALL, drop_path_rate=0.5).train()
    x = torch.randn(4, 3, 32, 32)
    together = encoder(x, noise=keyed([7, 8, 9, 10])).tokens
    alone = encoder(x[2:3], noise=keyed([9])).tokens
    torch.testing.assert_close(together[2:3], alone)
    assert not torch.allclose(alone, encoder(x[2:3], noise=keyed([11])).tokens)
    assert not torch.allclose(alone, encoder.eval()(x[2:3], noise=keyed([9])).tokens)


def test_stochastic_depth_drops_a_branch_or_scales_it_up():
    encoder = Swin(**SMALL, drop_path_rate=0.4).train()
    last = encoder.layers[1].blocks[1]
    # Four blocks of two branches: of the last block, attention is dropped and the MLP kept.
    draws = torch.tensor([[0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0.9]])
    seen = []
    for part in (last.norm1, encoder.norm):
        part.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(torch.randn(1, 3, 32, 32), noise=GivenNoise({"drop_path": draws}))
    before, after = seen
    torch.testing.assert_close(after, before + last.mlp(last.norm2(before)) / 0.6)


def test_recomputed_activations_give_the_same_gradients(random_plan):
    encoder = Swin(**SMALL, drop_path_rate=0.3).train()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=100)
    x, grads = torch.randn(2, 3, 32, 32), []
    for recompute in (False, True):
        encoder.set_grad_checkpointing(recompute)
        encoder.zero_grad()
        encoder(x, plan, keyed([0, 1])).tokens.square().mean().backward()
        grads.append({name: value.grad.clone() for name, value in encoder.named_parameters()})
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], msg=name)


def test_initialisation_is_simmims():
    encoder = Swin(name=NAME, img_size=64, window_size=4, depths=(1, 1), num_heads=(3, 6), position="learned")
    for part in (
        encoder.layers[1].blocks[0].mlp.fc1.weight,
        encoder.layers[1].downsample.reduction.weight,
        encoder.layers[1].blocks[0].attn.relative_position_bias_table,
        encoder.absolute_pos_embed,
        encoder.mask_token,
    ):
        assert part.std().item() == pytest.approx(0.02, rel=0.25)
        assert part.mean().abs().item() < 0.01
    wide = encoder.layers[1].blocks[0].mlp.fc1.weight
    assert wide.abs().max() > 0.06
    assert wide.std().item() == pytest.approx(0.02, rel=0.02)
    bound = (3 * 4 * 4) ** -0.5
    assert encoder.patch_embed.proj.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    block = encoder.layers[0].blocks[0]
    assert not block.attn.qkv.bias.any()
    assert not block.mlp.fc2.bias.any()
    assert (block.norm1.weight == 1).all()
    assert not block.norm1.bias.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "swin_gigantic"}, "timm has no model 'swin_gigantic'; the nearest names: .*swin_"),
        ({"name": "vit_tiny_patch16_224"}, "timm can't build 'vit_tiny_patch16_224' as a SwinTransformer"),
        ({"img_size": 33}, r"img_size \(33\) must be a multiple of the patch size \(2, 2\)"),
        ({"num_heads": (3, 4)}, r"num_heads \(3\) must divide embed_dim \(16\)"),
        ({"hidden": "drop"}, "windows need every patch: hidden must be 'replace', got 'drop'"),
        ({"num_heads": None}, r"depths \(\(2, 2\)\) and num_heads \(None\) must have one entry per stage"),
        ({"img_size": 30}, r"2 stages halve the grid of \(15, 15\) patches .* must be multiples of 2"),
    ],
)
def test_impossible_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Swin(**{**SMALL, **changes})


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"picture of \(40, 32\) pixels, expected \(32, 32\)"):
        Swin(**SMALL)(torch.zeros(1, 3, 40, 32))
