"""The model that an encoder's weights belong to: timm's, or one in its manner that timm lacks."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import timm
from hydra.utils import get_class
from torch import nn

from maskpre.checkpoints.swin_extras import PLAIN_SWIN, SwinExtras
from maskpre.encoders.conv_vit_classifier import ConvViTClassifier
from maskpre.encoders.video_vit_classifier import VideoViTClassifier
from maskpre.errors import UserError

Options = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A model by name, timm's or one of `BEYOND_TIMM`, and the constructor arguments in which it differs.

    `swin_extras` are the differences that no argument of timm's Swin expresses.
    """

    name: str
    options: Mapping[str, Any]
    swin_extras: SwinExtras = PLAIN_SWIN

    def build(
        self, *, num_classes: int, drop_path_rate: float = 0.0, global_pool: str | None = None
    ) -> nn.Module:
        """The model with fresh weights; UserError if it refuses the arguments."""
        create = BEYOND_TIMM.get(self.name) or partial(timm.create_model, self.name)
        try:
            net = create(
                num_classes=num_classes,
                drop_path_rate=drop_path_rate,
                global_pool=global_pool,
                **self.options,
            )
        except (AssertionError, TypeError, ValueError) as error:
            arguments = {"global_pool": global_pool, **self.options}
            raise UserError(f"can't build {self.name!r} with {arguments}: {error}") from error
        return net if self.swin_extras == PLAIN_SWIN else self.swin_extras.apply(net)

    @property
    def takes_clips(self) -> bool:
        """Whether it reads clips instead of pictures."""
        return "num_frames" in self.options

    def for_fine_tuning(self, img_size: int | None, num_frames: int | None = None) -> "Architecture":
        """As SimMIM fine-tunes: a shared relative-position table becomes one per block, and Swin's windows
        grow with the picture where that gives whole cells. A network for clips gets the number of frames.
        """
        options = dict(self.options)
        if num_frames is not None and self.takes_clips:
            options["num_frames"] = num_frames
        if options.get("use_shared_rel_pos_bias") and not options.get("use_rel_pos_bias"):
            options |= {"use_shared_rel_pos_bias": False, "use_rel_pos_bias": True}
        if img_size is not None and _is_sized(self.name):
            if "window_size" in options and "img_size" in options:
                window, rest = divmod(options["window_size"] * img_size, options["img_size"])
                options["window_size"] = options["window_size"] if rest else window
            options["img_size"] = img_size
        return replace(self, options=options)


def _is_sized(name: str) -> bool:
    """Whether a model is built for pictures of one size; convnets are not."""
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return known is None or known.fixed_input_size


def _given(config: Mapping[str, Any], names: tuple[str, ...]) -> Options:
    return {name: config[name] for name in names if config[name] is not None}


def _vit(config: Mapping[str, Any]) -> Options:
    sizes = ("img_size", "in_chans", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    options = _given(config, (*sizes, "class_token", "reg_tokens", "init_values"))
    return {**options, "pos_embed": "none"} if config["position"] == "none" else options


def _beit(config: Mapping[str, Any]) -> Options:
    sizes = ("img_size", "in_chans", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias")
    return {
        **_given(config, sizes),
        "init_values": config["init_values"] or 0.0,
        "use_rel_pos_bias": config["rel_pos"] in ("per_block", "both"),
        "use_shared_rel_pos_bias": config["rel_pos"] in ("shared", "both"),
        "use_abs_pos_emb": config["position"] == "learned",
    }


def _swin(config: Mapping[str, Any]) -> Options:
    sizes = ("img_size", "in_chans", "patch_size", "embed_dim", "depths", "num_heads", "window_size")
    return _given(config, (*sizes, "mlp_ratio", "qkv_bias"))


def _conv_vit(config: Mapping[str, Any]) -> Options:
    sizes = ("img_size", "in_chans", "patch_sizes", "embed_dims", "depths", "num_heads", "mlp_ratios")
    return _given(config, (*sizes, "multi_scale"))


def _video_vit(config: Mapping[str, Any]) -> Options:
    sizes = ("img_size", "num_frames", "in_chans", "patch_size", "tubelet_size", "embed_dim", "depth")
    return _given(config, (*sizes, "num_heads", "mlp_ratio", "qkv_bias", "scores", "init_values", "position"))


def _convnet(config: Mapping[str, Any]) -> Options:
    return {"in_chans": config["in_chans"], **(config["options"] or {})}


SWIN = "maskpre.encoders.swin.Swin"
CONV_VIT = "maskpre.encoders.conv_vit.ConvViT"
VIDEO_VIT = "maskpre.encoders.video_vit.VideoViT"


def _video_vit_classifier(
    *, num_classes: int, global_pool: str | None, drop_path_rate: float, **options: object
) -> nn.Module:
    return VideoViTClassifier(
        num_classes=num_classes, global_pool=global_pool, drop_path_rate=drop_path_rate, options=options
    )


BEYOND_TIMM: Mapping[str, Callable[..., nn.Module]] = {
    CONV_VIT: ConvViTClassifier,
    VIDEO_VIT: _video_vit_classifier,
}

FROM_CONFIG: Mapping[str, Callable[[Mapping[str, Any]], Options]] = {
    "maskpre.encoders.vit.ViT": _vit,
    "maskpre.encoders.beit.BeitViT": _beit,
    SWIN: _swin,
    CONV_VIT: _conv_vit,
    "maskpre.encoders.convnet.ConvNet": _convnet,
    VIDEO_VIT: _video_vit,
}


def from_config(encoder: Mapping[str, Any]) -> Architecture:
    """The model of an `encoder` node of a training configuration; UserError if there is none."""
    target = encoder["_target_"]
    if target not in FROM_CONFIG:
        raise UserError(f"no classifier is known for encoder {target}, only for {', '.join(FROM_CONFIG)}")
    parameters = inspect.signature(get_class(target)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    config = {**defaults, **encoder}
    extras = PLAIN_SWIN
    if target == SWIN:
        extras = SwinExtras(config["patch_norm"] == "layer", config["position"] == "learned")
    name = target if target in BEYOND_TIMM else encoder["name"]
    return Architecture(name, FROM_CONFIG[target](config), extras)
