import pytest
import timm
import torch

from maskpre.encoders.beit import BeitViT
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.ops.patchify import unpatchify
from maskpre.types import Grid, gather_tokens

NAME = "beit_base_patch16_224"
SMALL = {"name": NAME, "img_size": 24, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4}
TABLES = {"none": 0, "shared": 1, "per_block": 3, "both": 4}


def keyed(index: list[int]) -> KeyedNoise:
    return KeyedNoise(seed=0, epoch=torch.zeros(len(index), dtype=torch.int64), index=torch.tensor(index))


def tables_of(encoder):
    return [value for name, value in encoder.named_parameters() if name.endswith("bias_table")]


def stir(encoder):
    """Give every parameter a value that matters; fresh tables and biases are zero."""
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


@pytest.mark.parametrize("region", ["masked", "all"])
def test_loss_latent_and_gradients_are_the_official_ones(golden, check_golden, region):
    case = golden("vit_shared_rpb")
    sizes = ("patch_size", "embed_dim", "depth", "num_heads", "init_values")
    encoder = BeitViT(
        name=NAME,
        img_size=case.sizes["img_size"],
        **{key: case.sizes["encoder"][key] for key in sizes},
        mlp_ratio=float(case.sizes["encoder"]["mlp_ratio"]),
        rel_pos="shared",
    )
    step = check_golden(case, encoder, region)
    if region == "all":
        picture = unpatchify(step.predictions["student"]["main"].tokens, encoder.spec.out_grid)
        torch.testing.assert_close(picture.float(), case.outputs["pred"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rel_pos", list(TABLES))
@pytest.mark.parametrize("position", ["none", "learned"])
@pytest.mark.parametrize(("init_values", "qkv_bias"), [(0.1, True), (None, False)])
def test_features_are_timms_for_the_same_weights(rel_pos, position, init_values, qkv_bias):
    encoder = BeitViT(**SMALL, rel_pos=rel_pos, position=position, init_values=init_values, qkv_bias=qkv_bias)
    stir(encoder).eval()
    assert len(tables_of(encoder)) == TABLES[rel_pos]
    net = timm.create_model(
        **{"model_name": NAME, **{key: value for key, value in SMALL.items() if key != "name"}},
        num_classes=0,
        global_pool="token",
        use_abs_pos_emb=position == "learned",
        use_rel_pos_bias=rel_pos in ("per_block", "both"),
        use_shared_rel_pos_bias=rel_pos in ("shared", "both"),
        init_values=init_values or 0.0,
        qkv_bias=qkv_bias,
    ).eval()
    net.load_state_dict({k: v for k, v in encoder.state_dict().items() if k != "mask_token"})
    x = torch.randn(2, 3, 24, 24)
    expected = net.forward_features(x)
    encoded = encoder(x)
    torch.testing.assert_close(encoded.tokens, expected[:, 1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded.pooled("cls"), expected[:, 0], rtol=1e-4, atol=1e-5)


def test_pooled_norm_is_left_to_the_head():
    encoder = BeitViT(**SMALL, norm="pooled")
    assert not any(name.startswith(("norm.", "fc_norm.")) for name in encoder.state_dict())
    with_norm = BeitViT(**SMALL)
    with_norm.load_state_dict(encoder.state_dict(), strict=False)
    x = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(with_norm.norm(encoder(x).tokens), with_norm(x).tokens)


@pytest.mark.parametrize("rel_pos", list(TABLES))
@pytest.mark.parametrize("position", ["none", "learned"])
def test_dropping_is_attention_among_the_visible(random_plan, rel_pos, position):
    encoder = stir(BeitViT(**SMALL, rel_pos=rel_pos, position=position, hidden="drop")).double().eval()
    plan = random_plan(encoder.spec.grid, batch=3, num_visible=11)
    x = torch.randn(3, 3, 24, 24, dtype=torch.float64)
    encoded = encoder(x, plan)
    assert encoded.ids is plan.keep
    assert (encoded.tokens.shape, encoded.prefix.shape) == ((3, 11, 32), (3, 1, 32))

    # All tokens through timm's blocks, with attention to hidden ones forbidden.
    forbidden = torch.zeros(3, 37, dtype=torch.float64).masked_fill_(
        torch.nn.functional.pad(plan.mask, (1, 0)), float("-inf")
    )[:, None, None]
    tokens = encoder._embed(x, None, None)
    shared = forbidden if encoder.rel_pos_bias is None else encoder.rel_pos_bias() + forbidden
    for block in encoder.blocks:
        tokens = block(tokens, shared_rel_pos_bias=shared)
    expected = encoder.norm(tokens)
    torch.testing.assert_close(encoded.prefix, expected[:, :1])
    torch.testing.assert_close(encoded.tokens, gather_tokens(expected[:, 1:], plan.keep))


def test_dropping_trains_the_tables(random_plan):
    encoder = BeitViT(**SMALL, rel_pos="both", hidden="drop")
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=9)
    encoder(torch.randn(2, 3, 24, 24), plan).tokens.square().sum().backward()
    for table in tables_of(encoder):
        assert table.grad[-3:].abs().max() > 0
        assert table.grad[:-3].abs().max() > 0


def test_replaced_patches_have_no_influence_but_their_places_do(random_plan):
    encoder = stir(BeitViT(**SMALL, position="learned")).eval()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=12)
    x = torch.randn(2, 3, 24, 24)
    hidden = plan.mask.unflatten(1, (6, 6)).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    encoded = encoder(x, plan)
    assert encoded.ids is None
    torch.testing.assert_close(encoded.tokens, encoder(x + 5 * hidden, plan).tokens)
    assert not torch.allclose(encoded.tokens, encoder(x + 5 * ~hidden, plan).tokens)
    embedded = encoder._embed(x, plan, None)[:, 1:][plan.mask]
    places = encoder.pos_embed[:, 1:].expand(2, -1, -1)[plan.mask]
    torch.testing.assert_close(embedded, encoder.mask_token[0] + places)


def test_stochastic_depth_belongs_to_the_sample():
    encoder = stir(BeitViT(**SMALL, drop_path_rate=0.5)).train()
    x = torch.randn(4, 3, 24, 24)
    together = encoder(x, noise=keyed([7, 8, 9, 10])).tokens
    alone = encoder(x[2:3], noise=keyed([9])).tokens
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone, encoder(x[2:3]).tokens)
    kept = GivenNoise({"drop_path": torch.full((4, 6), 0.999)})
    assert not torch.allclose(encoder(x, noise=kept).tokens, encoder(x).tokens)
    torch.testing.assert_close(encoder.eval()(x, noise=kept).tokens, encoder(x).tokens)


def test_stochastic_depth_scales_the_branch_with_its_layer_scale():
    encoder = stir(BeitViT(**SMALL, drop_path_rate=0.4)).train()
    last, seen = encoder.blocks[-1], []
    draws = torch.tensor([[0.9, 0.9, 0.9, 0.9, 0.1, 0.9]])
    for part in (last.norm1, encoder.norm):
        part.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(torch.randn(1, 3, 24, 24), noise=GivenNoise({"drop_path": draws}))
    before, after = seen
    expected = before + last.gamma_2 * last.mlp(last.norm2(before)) / 0.6
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", ["replace", "drop"])
def test_recomputed_activations_give_the_same_gradients(random_plan, hidden):
    encoder = stir(BeitViT(**SMALL, rel_pos="both", drop_path_rate=0.3, hidden=hidden)).double().train()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=12)
    x, grads = torch.randn(2, 3, 24, 24, dtype=torch.float64), []
    for recompute in (False, True):
        encoder.set_grad_checkpointing(recompute)
        encoder.zero_grad()
        encoder(x, plan, keyed([0, 1])).tokens.square().mean().backward()
        grads.append({name: value.grad.clone() for name, value in encoder.named_parameters()})
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], msg=name)


def test_spec():
    spec = BeitViT(**SMALL, hidden="drop", in_chans=2).spec
    assert spec.grid == spec.out_grid == Grid((6, 6), (4, 4))
    assert (spec.embed_dim, spec.num_prefix_tokens, spec.in_chans, spec.hidden) == (32, 1, 2, "drop")


def test_initialisation_is_simmims():
    encoder = BeitViT(**{**SMALL, "embed_dim": 192}, rel_pos="both", position="learned", init_values=0.1)
    parts = [
        encoder.patch_embed.proj.weight,
        encoder.cls_token,
        encoder.mask_token,
        encoder.pos_embed,
        encoder.blocks[2].attn.qkv.weight,
        encoder.blocks[2].mlp.fc1.weight,
    ]
    for part in parts:
        assert part.abs().max() <= 0.02
        assert part.std().item() == pytest.approx(0.0108, rel=0.15)
    assert parts[-1].std().item() == pytest.approx(0.0108, rel=0.01)
    for index, block in enumerate(encoder.blocks):
        for part in (block.attn.proj, block.mlp.fc2):
            scale = (2 * (index + 1)) ** 0.5
            assert part.weight.std().item() == pytest.approx(0.0108 / scale, rel=0.02)
            assert part.weight.abs().max() <= 0.02 / scale
        assert (block.gamma_1 == 0.1).all()
        assert (block.norm2.weight == 1).all()
    for table in tables_of(encoder):
        assert not table.any()
    for name, value in encoder.named_parameters():
        if name.endswith(("bias", "q_bias", "v_bias")):
            assert not value.any(), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "beit_nano"}, "timm has no model 'beit_nano'; the nearest names: .*beit"),
        ({"name": "vit_tiny_patch16_224"}, "timm can't build 'vit_tiny_patch16_224' as a Beit"),
        ({"img_size": 25}, r"img_size \(25\) must be a multiple of the patch size \(4, 4\)"),
        ({"num_heads": 5}, r"num_heads \(5\) must divide embed_dim \(32\)"),
    ],
)
def test_impossible_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        BeitViT(**{**SMALL, **changes})


@pytest.mark.parametrize("hidden", ["replace", "drop"])
def test_a_picture_of_another_size_is_refused(random_plan, hidden):
    encoder = BeitViT(**SMALL, hidden=hidden)
    plan = random_plan(encoder.spec.grid, batch=1, num_visible=9)
    with pytest.raises(ValueError, match=r"picture of \(32, 32\) pixels, expected \(24, 24\)"):
        encoder(torch.zeros(1, 3, 32, 32), plan)
