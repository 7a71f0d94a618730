"""An encoder as a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` understands."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from torch import Tensor

from maskpre.checkpoints.architecture import BEYOND_TIMM, Architecture, Options, from_config
from maskpre.checkpoints.load import load_encoder
from maskpre.checkpoints.sources import WEIGHTS, OwnSource
from maskpre.checkpoints.swin_extras import PLAIN_SWIN
from maskpre.errors import UserError


def write_timm(source: OwnSource, folder: Path) -> None:
    """Write config.json and model.safetensors; UserError for an encoder that timm has no arguments for."""
    architecture = from_config(source.config["encoder"])
    check_timm_has(architecture, otherwise="; use format=full")
    state = source.encoder()
    options = {**architecture.options, **_pooling(state)}
    net: Any = timm.create_model(architecture.name, num_classes=0, **options)
    load_encoder(net, state, source=str(folder), kind="export")
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / WEIGHTS)
    encoder, inputs = source.config["encoder"], source.config["inputs"]
    data = {
        "input_size": [encoder["in_chans"], encoder["img_size"], encoder["img_size"]],
        "mean": list(inputs["mean"]),
        "std": list(inputs["std"]),
    }
    write_record(net, folder, name=architecture.name, options=options, data=data)


def write_record(
    net: Any, folder: Path, *, name: str, options: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """Write config.json of timm's model `name`; `data` has its pictures' size, mean and deviation."""
    record = {
        "architecture": name,
        "num_classes": net.num_classes,
        "num_features": net.num_features,
        "global_pool": options["global_pool"],
        "model_args": options,
        "pretrained_cfg": _pretrained_cfg(net, data),
    }
    (folder / "config.json").write_text(json.dumps(record, indent=2))


def check_timm_has(architecture: Architecture, *, otherwise: str) -> None:
    """UserError, ending with `otherwise`, for a model that timm has no arguments for."""
    if architecture.name in BEYOND_TIMM:
        other = "; use format=video" if architecture.takes_clips else otherwise
        raise UserError(f"timm has no model like {architecture.name}{other}")
    if architecture.swin_extras != PLAIN_SWIN:
        raise UserError(
            "timm's Swin has neither absolute positions nor a patch embedding without norm "
            f"({architecture.swin_extras}){otherwise}"
        )


def timm_features(folder: Path, pictures: Tensor) -> Tensor:
    """What timm makes of the folder and the pictures: tokens (b, n, d), prefix tokens first, in float64."""
    net: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).double().eval()
    features: Tensor = net.forward_features(pictures)
    if features.ndim == 4 and getattr(net, "output_fmt", "NCHW") == "NCHW":
        features = features.permute(0, 2, 3, 1)
    return features.flatten(1, -2)


def _pooling(state: Mapping[str, Tensor]) -> Options:
    """How the model pools unless told otherwise, such that the encoder's last norm stays where it is.

    Behind average pooling timm's ViTs would have another norm.
    """
    if "cls_token" in state and "norm.weight" in state:
        return {"global_pool": "token"}
    plain_vit = "blocks.0.attn.qkv.bias" in state
    return {"global_pool": "avg", **({"fc_norm": False} if plain_vit else {})}


def _pretrained_cfg(net: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's data pipeline must know: size, mean, std; and where the first and last layers are."""
    known: Mapping[str, Any] = net.pretrained_cfg
    return {
        "tag": "maskpre",
        **data,
        "fixed_input_size": known["fixed_input_size"],
        "interpolation": "bicubic",
        "crop_pct": known["crop_pct"],
        "crop_mode": "center",
        "num_classes": net.num_classes,
        "pool_size": None,
        "first_conv": known["first_conv"],
        "classifier": known["classifier"],
    }
