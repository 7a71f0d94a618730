from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from maskpre.errors import UserError
from maskpre.evaluation.models import start_classifier, start_encoder

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
