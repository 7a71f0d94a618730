"""Checkpoints of small models with weights that no initialisation gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from maskpre.build import build_model
from maskpre.checkpoints.save import atomic_save
from maskpre.config import compose

CONV_VIT = [
    "encoder=conv_vit",
    "encoder.embed_dims=[8,12,24]",
    "encoder.depths=[1,2,2]",
    "encoder.num_heads=3",
]
SMALL = ["epochs=800", "data.image_size=32", "encoder.embed_dim=24"]
VIT = ["encoder.depth=2", "encoder.num_heads=3"]
DECODER = ["predictor.embed_dim=16", "predictor.depth=1", "predictor.num_heads=2"]
VIDEO = [
    "experiment=videomae",
    "data.image_size=16",
    "data.num_frames=4",
    "encoder.embed_dim=192",
    "encoder.depth=2",
    "encoder.num_heads=3",
    "encoder.mlp_ratio=1.0",
]
OVERRIDES = {
    "videomae": [*VIDEO, *DECODER],
    "mae": ["experiment=mae", *SMALL, *VIT, *DECODER],
    "mae_no_class": ["experiment=mae", *SMALL, *VIT, *DECODER, "encoder.class_token=false"],
    "conv_vit": ["experiment=mae", *CONV_VIT, *SMALL[:2], *DECODER],
    "simmim_vit": ["experiment=simmim", "encoder=simmim_vit", *SMALL, *VIT],
    "convnet": [
        "experiment=spark",
        "encoder=resnet",
        *SMALL[:2],
        "encoder.options.channels=[4,8,8,12]",
        "predictor.width=16",
    ],
    "swin": ["experiment=simmim", "encoder=swin", *SMALL, "encoder.depths=[2,2]", "encoder.num_heads=[2,4]"],
}


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Writes a checkpoint of one of the models above, with further overrides, and gives its path."""

    def make(name: str, *more: str) -> str:
        config = compose([*OVERRIDES[name], *more])
        torch.manual_seed(0)
        model = build_model(config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        path: Path = tmp_path_factory.mktemp("checkpoints") / f"{name}.ckpt"
        content = {"state_dict": model.state_dict(), "config": OmegaConf.to_container(config, resolve=True)}
        atomic_save(content, path)
        return str(path)

    return make


@pytest.fixture(scope="session")
def mae(make_checkpoint: Callable[..., str]) -> str:
    return make_checkpoint("mae")


@pytest.fixture(scope="session")
def swin(make_checkpoint: Callable[..., str]) -> str:
    return make_checkpoint("swin")


@pytest.fixture(scope="session")
def simmim_vit(make_checkpoint: Callable[..., str]) -> str:
    return make_checkpoint("simmim_vit")
