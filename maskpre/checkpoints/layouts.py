"""The layouts of official checkpoints, told apart by their names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from maskpre.checkpoints import (
    infer,
    names_convmae,
    names_dino,
    names_dinov2,
    names_hpm,
    names_mae,
    names_maskalign,
    names_mmpretrain,
    names_openai,
    names_sigma,
    names_simmim,
    names_spark,
    names_transformers,
    names_videomae,
)
from maskpre.checkpoints.architecture import Architecture

State = Mapping[str, Tensor]
EMBEDDING = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Layout:
    """How one code base names its tensors: `marker` is a pattern that fits a name no other layout has.

    `model_keys` gives MaskedModel's names, `encoder_keys` timm's, and `architecture` reads timm's names.
    `of_clips` says whether the patch embedding is that of clips.
    """

    name: str
    marker: str
    model_keys: Callable[[State], dict[str, Tensor]]
    encoder_keys: Callable[[State], dict[str, Tensor]]
    infer: Callable[[State], Architecture]
    of_clips: bool = False

    def architecture(self, state: State) -> Architecture:
        """The encoder's, told from a checkpoint in this layout."""
        bare = {name.removeprefix("encoder."): value for name, value in state.items()}
        return self.infer({**bare, **self.encoder_keys(state)})


def _encoder_only(
    encoder_keys: Callable[[State], dict[str, Tensor]],
) -> Callable[[State], dict[str, Tensor]]:
    """Names of a MaskedModel for a layout that holds an encoder and nothing else."""
    return lambda state: {f"encoder.{name}": value for name, value in encoder_keys(state).items()}


LAYOUTS = (
    Layout(
        "SIGMA",
        r"((module|_orig_mod)\.)*prototypes",
        names_sigma.pretraining_keys,
        names_sigma.encoder_keys,
        infer.video_vit,
        of_clips=True,
    ),
    Layout(
        "VideoMAE",
        r"(.*\.)?blocks\.0\.attn\.qkv\.weight",
        names_videomae.pretraining_keys,
        names_videomae.encoder_keys,
        infer.video_vit,
        of_clips=True,
    ),
    Layout(
        "SparK",
        r"(sparse_encoder\.sp_cnn\.)?(layer1\.0\.conv1|downsample_layers\.0\.0)\.weight",
        names_spark.pretraining_keys,
        names_spark.encoder_keys,
        infer.convnet,
    ),
    Layout(
        "ConvMAE",
        r"blocks3\.0\.attn\.qkv\.weight",
        names_convmae.pretraining_keys,
        names_mae.encoder_keys,
        infer.conv_vit,
    ),
    Layout(
        "MaskAlign",
        r"distill_heads\.\d+\..*",
        names_maskalign.pretraining_keys,
        names_maskalign.encoder_keys,
        infer.vit,
    ),
    Layout(
        "CLIP of transformers",
        r"(vision_model\.)?encoder\.layers\.0\.self_attn\.q_proj\.weight",
        _encoder_only(names_transformers.clip_keys),
        names_transformers.clip_keys,
        infer.clip,
    ),
    Layout(
        "CLIP of OpenAI",
        r"visual\.transformer\.resblocks\.0\.attn\.in_proj_weight",
        _encoder_only(names_openai.clip_keys),
        names_openai.clip_keys,
        infer.clip,
    ),
    Layout(
        "ViT of transformers",
        r"(vit\.)?encoder\.layer\.0\.attention\.attention\.query\.weight",
        _encoder_only(names_transformers.vit_keys),
        names_transformers.vit_keys,
        infer.vit,
    ),
    Layout(
        "DINOv2",
        "register_tokens",
        _encoder_only(names_dinov2.encoder_keys),
        names_dinov2.encoder_keys,
        infer.dinov2,
    ),
    Layout(
        "DINO",
        r"(module\.)?backbone\.blocks\.0\.attn\.qkv\.weight",
        _encoder_only(names_dino.encoder_keys),
        names_dino.encoder_keys,
        infer.vit,
    ),
    Layout(
        "mmpretrain MAE",
        r"backbone\.layers\.0\.ln1\.weight",
        names_mmpretrain.pretraining_keys,
        names_mmpretrain.encoder_keys,
        infer.vit,
    ),
    Layout(
        "SimMIM Swin",
        r"(encoder\.)?layers\.0\.blocks\.0\.attn\.relative_position_bias_table",
        partial(names_simmim.pretraining_keys, kind="swin"),
        partial(names_simmim.encoder_keys, kind="swin"),
        infer.swin,
    ),
    Layout(
        "SimMIM ViT",
        r"(encoder\.)?blocks\.0\.(attn\.q_bias|gamma_1)",
        partial(names_simmim.pretraining_keys, kind="vit"),
        partial(names_simmim.encoder_keys, kind="vit"),
        infer.beit,
    ),
    Layout(
        "HPM",
        r"(module\.)?decoder_blocks_losspred\.0\.norm1\.weight",
        names_hpm.pretraining_keys,
        names_hpm.encoder_keys,
        infer.vit,
    ),
    Layout(
        "MAE",
        r"blocks\.0\.attn\.qkv\.weight",
        names_mae.pretraining_keys,
        names_mae.encoder_keys,
        infer.vit,
    ),
)


def recognise(state: State) -> Layout | None:
    """The first layout whose marker a name fits, or None."""
    of_clips = any(name.endswith(EMBEDDING) and value.dim() == 5 for name, value in state.items())
    for layout in LAYOUTS:
        if layout.of_clips == of_clips and any(re.fullmatch(layout.marker, name) for name in state):
            return layout
    return None
