"""A video encoder as a folder of weights, sizes, and the forward pass in plain torch."""

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from maskpre.checkpoints import plain_video
from maskpre.checkpoints.architecture import VIDEO_VIT, Architecture, from_config
from maskpre.checkpoints.sources import WEIGHTS, OwnSource
from maskpre.errors import UserError

FORWARD = "plain_video.py"


def write_video(source: OwnSource, folder: Path) -> None:
    """Write config.json, model.safetensors and the forward pass; UserError for an encoder of pictures.

    timm has no ViT of clips, but the names are those of its ViTs, and this package loads the folder wherever
    it takes a checkpoint.
    """
    architecture = from_config(source.config["encoder"])
    if architecture.name != VIDEO_VIT:
        raise UserError(f"format=video holds an encoder of clips, not {architecture.name}; use format=timm")
    inputs = source.config["inputs"]
    write_folder(source.encoder(), architecture, folder, mean=inputs["mean"], std=inputs["std"])


def write_folder(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    folder: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int = 0,
) -> None:
    """Write the three files of a `VideoViT`'s weights; `mean` and `std` are those of its clips."""
    options = dict(architecture.options)
    size = (options["in_chans"], options["num_frames"], options["img_size"], options["img_size"])
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)
    pretrained_cfg = {"tag": "maskpre", "input_size": list(size), "mean": list(mean), "std": list(std)}
    record: dict[str, Any] = {
        "architecture": architecture.name,
        "num_classes": num_classes,
        "num_features": options["embed_dim"],
        "model_args": options,
        "pretrained_cfg": pretrained_cfg,
    }
    (folder / "config.json").write_text(json.dumps(record, indent=2))
    shutil.copyfile(plain_video.__file__, folder / FORWARD)


def video_features(folder: Path, clips: Tensor) -> Tensor:
    """What the folder's own forward pass makes of clips: tokens (b, n, d) or class scores, in float64."""
    spec = importlib.util.spec_from_file_location("exported_video", folder / FORWARD)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokens: Tensor = module.load(folder, dtype=torch.float64)(clips)
    return tokens
