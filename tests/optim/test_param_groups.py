import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from maskpre.errors import UserError
from maskpre.optim import DECAY_POLICIES, build_param_groups, layer_decay_table, weight_decay_split

GOLDEN = Path(__file__).parents[1] / "golden"


def case(name):
    return json.loads((GOLDEN / name / "case.json").read_text())


def official_parameters(name, names):
    """Parameters under the given official names, with the shapes the case stores."""
    weights = load_file(GOLDEN / name / "weights.safetensors")
    shapes = {key.removeprefix("encoder."): value.shape for key, value in weights.items()}
    return [(key, nn.Parameter(torch.zeros(shapes[key.removeprefix("encoder.")]))) for key in names]


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("mae/pretrain_normpix", "mae"),
        ("mae/pretrain_pixels", "mae"),
        ("simmim/swin", "simmim_swin"),
        ("simmim/vit_shared_rpb", "simmim_vit"),
    ],
)
def test_pretraining_split_is_the_official_one(name, policy):
    extras = case(name)["extras"]
    names = sorted(extras["weight_decay"] + extras["no_weight_decay"])
    decayed, exempt = weight_decay_split(official_parameters(name, names), policy)
    assert decayed == sorted(extras["weight_decay"])
    assert exempt == sorted(extras["no_weight_decay"])


@pytest.mark.parametrize(
    ("name", "policy"),
    [("mae/finetune_gap", "mae_finetune"), ("simmim/finetune_swin_win6_to_7", "simmim_swin_finetune")],
)
def test_fine_tuning_table_is_the_official_one(name, policy):
    loaded = case(name)
    settings = loaded["hyperparameters"]
    expected = loaded["extras"]["layer_decay_groups_name_to_lrscale_wd"]
    scales = layer_decay_table(expected, decay=settings["layer_decay"], naming="official")
    named = official_parameters(name, expected)
    groups = build_param_groups(
        named, lr=1.0, weight_decay=settings["weight_decay"], policy=policy, lr_scales=scales
    )
    owner = {id(p): group for group in groups for p in group["params"]}
    for parameter_name, parameter in named:
        group = owner[id(parameter)]
        assert [group["lr_scale"], group["weight_decay"]] == expected[parameter_name], parameter_name
        assert group["lr"] == group["lr_scale"]


def test_convvit_is_decayed_by_the_layers_of_its_transformer():
    """ConvMAE's fine-tuning code: all that comes before the third stage's blocks has id 0."""
    names = [
        "pos_embed",
        "patch_embed1.proj.weight",
        "patch_embed4.weight",
        "blocks1.1.conv1.weight",
        "blocks2.0.mlp.fc2.weight",
        "blocks3.0.attn.qkv.weight",
        "blocks3.10.norm1.bias",
        "fc_norm.weight",
        "head.weight",
    ]
    scales = layer_decay_table(names, decay=0.65)
    assert list(scales.values()) == [0.65**n for n in (12, 12, 12, 12, 12, 11, 1, 0, 0)]


def test_swin_scales_agree_between_timm_and_official_names():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=56,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        num_classes=6,
    )
    expected = case("simmim/finetune_swin_win6_to_7")["extras"]["layer_decay_groups_name_to_lrscale_wd"]
    ours = layer_decay_table(dict(model.named_parameters()), decay=0.8)
    official = {
        name.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc", "head"): scale
        for name, scale in ours.items()
    }
    assert official == {name: scale for name, (scale, _) in expected.items()}


def test_timm_vit_has_the_official_scales_and_decay():
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, depth=2, global_pool="avg", num_classes=10
    )
    expected = case("mae/finetune_gap")["extras"]["layer_decay_groups_name_to_lrscale_wd"]
    named = dict(model.named_parameters())
    assert layer_decay_table(named, decay=0.65) == {name: scale for name, (scale, _) in expected.items()}
    decayed, _ = weight_decay_split(named.items(), "mae_finetune")
    assert set(decayed) == {name for name, (_, decay) in expected.items() if decay}


def test_mmpretrain_exempts_tokens_norms_and_biases_anywhere():
    policy = DECAY_POLICIES["mmpretrain"]
    matrix = torch.zeros(2, 2)
    exempt = [
        "encoder.cls_token",
        "predictors.mae.mask_token",
        "backbone.ln1.weight",
        "blocks.0.norm1.weight",
    ]
    assert not any(policy.decays(name, matrix) for name in [*exempt, "relative_position_bias_table"])
    assert policy.decays("encoder.patch_embed.proj.weight", matrix)
    assert policy.decays("blocks.0.gamma", torch.zeros(2))


def test_frozen_parameters_are_left_out_and_nothing_trainable_is_an_error():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    (group,) = build_param_groups(layer.named_parameters(), lr=1.0, weight_decay=0.1, policy="mae")
    assert group["name"] == "lr*1/decay"
    assert group["params"] == [layer.weight]
    layer.weight.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter requires a gradient"):
        build_param_groups(layer.named_parameters(), lr=1.0, weight_decay=0.1, policy="mae")


def test_layer_decay_refuses_an_unknown_kind_of_network():
    with pytest.raises(UserError, match=r"`blocks\.\*` \(ViT\)"):
        layer_decay_table(["stem.weight", "stages.0.weight"], decay=0.5)
