import json
import math
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


RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
# Ids of the blocks of the second and third stage, as SparK's fine-tuning groups them, and that of the fourth.
RESNET_IDS = {
    "resnet50": ([2, 2, 3, 3], [4, 4, 4, 5, 5, 5], 6),
    "resnet101": ([2, 2, 3, 3], [4 + block // 3 for block in range(23)], 12),
    "resnet152": ([2] * 4 + [3] * 4, [4 + block // 4 for block in range(36)], 13),
}


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_are_decayed_by_groups_of_blocks(name):
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=3)
    second, third, last = RESNET_IDS[name]
    scales = layer_decay_table(dict(net.named_parameters()), decay=0.5)

    def ids(stage, blocks):
        prefixes = [f"layer{stage}.{block}." for block in range(blocks)]
        return [
            {last + 1 + math.log2(scales[key]) for key in scales if key.startswith(prefix)}
            for prefix in prefixes
        ]

    assert scales["conv1.weight"] == scales["bn1.bias"] == 0.5 ** (last + 1)
    assert [ids(1, 3), ids(4, 3)] == [[{1}] * 3, [{last}] * 3]
    assert [ids(2, len(second)), ids(3, len(third))] == [[{i} for i in second], [{i} for i in third]]
    assert scales["fc.weight"] == scales["fc.bias"] == 1


@pytest.mark.parametrize(("name", "last"), [("convnext_tiny", 6), ("convnext_small", 12)])
def test_convnexts_are_decayed_by_three_blocks_of_the_third_stage(name, last):
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=3)
    scales = layer_decay_table(dict(net.named_parameters()), decay=0.5)
    ids = {key: last + 1 + math.log2(scale) for key, scale in scales.items()}
    assert {ids[key] for key in ids if key.startswith("stem.")} == {0}
    assert {ids[key] for key in ids if key.startswith("stages.0.")} == {1}
    assert {ids[key] for key in ids if key.startswith("stages.1.")} == {2}
    assert ids["stages.2.downsample.1.weight"] == 3
    blocks = {key: int(key.split(".")[3]) for key in ids if key.startswith("stages.2.blocks.")}
    assert {ids[key] - 3 - block // 3 for key, block in blocks.items()} == {0}
    assert {ids[key] for key in ids if key.startswith("stages.3.")} == {last}
    assert {ids[key] for key in ids if key.startswith("head.")} == {last + 1}


def test_sparks_layer_scales_and_tokens_do_not_decay():
    policy, matrix = DECAY_POLICIES["spark"], torch.zeros(1, 4, 1, 1)
    assert not any(
        policy.decays(name, matrix)
        for name in ("stages.0.blocks.0.gamma", "densify.0.mask_token", "conv.bias")
    )
    assert policy.decays("layer1.0.conv1.weight", matrix)


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
