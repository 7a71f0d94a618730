from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import timm
import torch
from omegaconf import OmegaConf

from maskpre.errors import UserError
from maskpre.evaluation.models import (
    read_head_rows,
    recompute_activations,
    start_classifier,
    start_encoder,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "recipe"


def recipe(name="demo", **changes):
    root = OmegaConf.create({"data": {"image_size": 16, "mean": [0.5] * 3}, "recipe": {}})
    root.recipe = OmegaConf.load(CONFIGS / f"{name}.yaml")
    return replace(hydra.utils.instantiate(root.recipe), **changes)


def test_a_classifier_starts_as_mae_says(data):
    net, report = start_classifier(
        "vit_tiny_patch16_224", data, recipe(drop_path_rate=0.1), start="checkpoint"
    )
    assert net.head.weight.shape == (2, 192)
    assert net.head.weight.std().item() == pytest.approx(2e-5, rel=0.2)
    assert not net.head.bias.any()
    assert isinstance(net.norm, torch.nn.Identity)
    assert net.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert net.pos_embed.requires_grad
    assert "fresh" in str(report)


def test_an_encoder_keeps_its_norm_and_ends_with_tokens(data):
    net, _ = start_encoder("vit_tiny_patch16_224", data, start="checkpoint")
    assert isinstance(net.norm, torch.nn.LayerNorm)
    assert net(torch.zeros(1, 3, 16, 16)).shape == (1, 2, 192)


def test_scratch_takes_the_architecture_alone(data, tmp_path):
    net, _ = start_encoder("vit_tiny_patch16_224", data, start="checkpoint")
    torch.nn.init.constant_(net.norm.weight, 7.0)
    path = tmp_path / "weights.pth"
    torch.save({"model": {**net.state_dict(), "mask_token": torch.zeros(1, 1, 192)}}, path)
    loaded, report = start_encoder(str(path), data, start="checkpoint")
    scratch, told = start_encoder(str(path), data, start="scratch")
    assert (loaded.norm.weight == 7).all()
    assert len(report.loaded) == len(net.state_dict())
    assert (scratch.norm.weight == 1).all()
    assert scratch.state_dict().keys() == loaded.state_dict().keys()
    assert "architecture only" in str(told)


def test_channels_that_do_not_match_are_named(data):
    grey = replace(data, channels=1, mean=[0.5], std=[0.5])
    with pytest.raises(UserError, match="channels"):
        start_encoder("vit_tiny_patch16_224", grey, start="checkpoint")


def test_rows_of_the_source_s_head_are_taken_over(data, tmp_path):
    fresh, _ = start_classifier("vit_tiny_patch16_224", data, recipe(), start="checkpoint")
    weight, bias = torch.randn(5, 192), torch.randn(5)
    wide = {**fresh.state_dict(), "head.weight": weight, "head.bias": bias}
    path = tmp_path / "wide.pth"
    torch.save({"model": {**wide, "mask_token": torch.zeros(1, 1, 192)}}, path)
    net, report = start_classifier(str(path), data, recipe(), start="checkpoint", head_rows=[3, 0])
    assert torch.equal(net.head.weight, weight[[3, 0]])
    assert torch.equal(net.head.bias, bias[[3, 0]])
    assert report.fresh == ()
    with pytest.raises(UserError, match=r"wide\.pth has 5 classes, numbered from 0; there is no class 5"):
        start_classifier(str(path), data, recipe(), start="checkpoint", head_rows=[5, 0])
    with pytest.raises(UserError, match="start=scratch keeps nothing"):
        start_classifier(str(path), data, recipe(), start="scratch", head_rows=[3, 0])
    with pytest.raises(UserError, match="has no head whose rows could be taken over"):
        start_classifier("vit_tiny_patch16_224", data, recipe(), start="checkpoint", head_rows=[3, 0])


@pytest.mark.parametrize("epochs", [0, 5])
def test_a_head_for_as_many_classes_is_kept(epochs, data, tmp_path):
    fresh, _ = start_classifier("vit_tiny_patch16_224", data, recipe(), start="checkpoint")
    torch.nn.init.normal_(fresh.head.weight)
    path = tmp_path / "tuned.pth"
    torch.save({"model": {**fresh.state_dict(), "mask_token": torch.zeros(1, 1, 192)}}, path)
    net, report = start_classifier(str(path), data, recipe(epochs=epochs), start="checkpoint")
    assert torch.equal(net.head.weight, fresh.head.weight)
    assert report.fresh == ()


@pytest.mark.parametrize("start", ["checkpoint", "scratch"])
def test_fresh_weights_are_not_scored(start, data):
    with pytest.raises(UserError, match=r"epochs=0 trains nothing, but vit_tiny.* is no classifier of 2 cla"):
        start_classifier("vit_tiny_patch16_224", data, recipe(epochs=0), start=start)


def test_recomputed_activations_give_the_same_gradients(data):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net, _ = start_classifier("vit_tiny_patch16_224", data, recipe(head_std=1.0), start="checkpoint")
        if recompute:
            recompute_activations(net)
        assert net.grad_checkpointing is recompute
        net(torch.ones(2, 3, 16, 16)).square().sum().backward()
        gradients.append(net.blocks[0].mlp.fc1.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("net", [torch.nn.Linear(2, 2), timm.create_model("crossvit_9_240")])
def test_networks_that_can_not_recompute_are_refused(net):
    with pytest.raises(UserError, match=f"{type(net).__name__} can't recompute activations; use activ"):
        recompute_activations(net)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"3\n", "has 1 lines, the data have 2 classes"),
        (b"3\nfour\n", "holds 'four' where a class's number should be"),
        (b"3\n-1\n", "holds '-1' where"),
        (b"\xff\xfe", "can't be read"),
        (None, "can't be read"),
    ],
)
def test_bad_files_of_rows_are_told(content, message, tmp_path):
    path = tmp_path / "rows.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"head_rows: .*rows.txt {message}"):
        read_head_rows(str(path), 2)


def test_rows_are_read_in_the_order_of_the_data_s_classes(tmp_path):
    (tmp_path / "rows.txt").write_text("7\n0\n3\n")
    assert read_head_rows(str(tmp_path / "rows.txt"), 3) == [7, 0, 3]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_inputs_of_the_head_are_dropped_in_training_only(name, data):
    net, _ = start_classifier(
        name, data, recipe(head_dropout=0.5, head_std=None, global_pool=None), start="checkpoint"
    )
    head, seen = net.get_classifier(), []
    head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    torch.manual_seed(0)
    for mode in (False, True):
        head.train(mode)(torch.ones(1, head.in_features))
    assert (seen[0] == 1).all()
    assert set(seen[1].unique().tolist()) == {0.0, 2.0}
    assert (seen[1] == 0).float().mean().item() == pytest.approx(0.5, abs=0.15)


def test_a_rate_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match=r"head_dropout must be in \[0, 1\), got 1"):
        recipe(head_dropout=1.0)


def test_only_the_named_parts_learn(data):
    net, _ = start_classifier(
        "vit_tiny_patch16_224", data, recipe(trainable=["fc_norm", "blocks.1"]), start="checkpoint"
    )
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learning == {n for n in net.state_dict() if n.startswith(("fc_norm.", "blocks.1."))}
    assert net.blocks[1].attn.training
    assert not net.blocks[10].attn.training
    assert not net.head.training


def test_parts_that_are_not_there_are_named(data):
    with pytest.raises(UserError, match=r"trainable: VisionTransformer has no weights 'hea', only .*, head"):
        start_classifier("vit_tiny_patch16_224", data, recipe(trainable=["hea"]), start="checkpoint")
