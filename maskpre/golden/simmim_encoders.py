"""The official encoder settings of SimMIM's cases, in this package's words and in timm's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from maskpre.checkpoints.architecture import Architecture
from maskpre.checkpoints.names_simmim import Kind
from maskpre.checkpoints.swin_extras import SwinExtras
from maskpre.golden.case import CannotReplayError, Case, parse
from maskpre.optim import DecayPolicyName


@dataclass
class SwinSettings:
    """The official Swin's constructor arguments."""

    kind: ClassVar[Kind] = "swin"
    pretrain_policy: ClassVar[DecayPolicyName] = "simmim_swin"
    finetune_policy: ClassVar[DecayPolicyName] = "simmim_swin_finetune"

    patch_size: int
    embed_dim: int
    depths: list[int]
    num_heads: list[int]
    window_size: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    ape: bool = False
    patch_norm: bool = True

    @property
    def stride(self) -> int:
        """Pixels per output cell."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    def overrides(self) -> list[str]:
        """The encoder of an experiment."""
        return [
            "encoder=swin",
            f"optim.decay_policy={self.pretrain_policy}",
            f"encoder.patch_size={self.patch_size}",
            f"encoder.embed_dim={self.embed_dim}",
            f"encoder.depths={list(self.depths)}",
            f"encoder.num_heads={list(self.num_heads)}",
            f"encoder.window_size={self.window_size}",
            f"encoder.mlp_ratio={self.mlp_ratio}",
            f"encoder.qkv_bias={self.qkv_bias}",
            f"encoder.position={'learned' if self.ape else 'none'}",
            f"encoder.patch_norm={'layer' if self.patch_norm else 'none'}",
        ]

    def architecture(self, img_size: int) -> Architecture:
        """The classifier in timm."""
        options: dict[str, Any] = {
            "img_size": img_size,
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
            "depths": tuple(self.depths),
            "num_heads": tuple(self.num_heads),
            "window_size": self.window_size,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
        }
        return Architecture("swin_tiny_patch4_window7_224", options, SwinExtras(self.patch_norm, self.ape))

    @property
    def pool(self) -> str:
        """How the classifier pools."""
        return "avg"


@dataclass
class VitSettings:
    """The official ViT's constructor arguments."""

    kind: ClassVar[Kind] = "vit"
    pretrain_policy: ClassVar[DecayPolicyName] = "simmim_vit"
    finetune_policy: ClassVar[DecayPolicyName] = "simmim_vit"

    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    init_values: float | None = None
    use_abs_pos_emb: bool = False
    use_rel_pos_bias: bool = False
    use_shared_rel_pos_bias: bool = False
    use_mean_pooling: bool = False

    @property
    def stride(self) -> int:
        """Pixels per output cell."""
        return self.patch_size

    def overrides(self) -> list[str]:
        """The encoder of an experiment."""
        tables = {
            (False, False): "none",
            (True, False): "per_block",
            (False, True): "shared",
            (True, True): "both",
        }
        rel_pos = tables[self.use_rel_pos_bias, self.use_shared_rel_pos_bias]
        return [
            "encoder=simmim_vit",
            f"optim.decay_policy={self.pretrain_policy}",
            f"encoder.patch_size={self.patch_size}",
            f"encoder.embed_dim={self.embed_dim}",
            f"encoder.depth={self.depth}",
            f"encoder.num_heads={self.num_heads}",
            f"encoder.mlp_ratio={self.mlp_ratio}",
            f"encoder.qkv_bias={self.qkv_bias}",
            f"encoder.init_values={self.init_values or 'null'}",
            f"encoder.rel_pos={rel_pos}",
            f"encoder.position={'learned' if self.use_abs_pos_emb else 'none'}",
            f"encoder.norm={'pooled' if self.use_mean_pooling else 'tokens'}",
        ]

    def architecture(self, img_size: int) -> Architecture:
        """The classifier in timm."""
        options = {
            "img_size": img_size,
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "init_values": self.init_values or 0.0,
            "use_abs_pos_emb": self.use_abs_pos_emb,
            "use_rel_pos_bias": self.use_rel_pos_bias,
            "use_shared_rel_pos_bias": self.use_shared_rel_pos_bias,
        }
        return Architecture("beit_base_patch16_224", options)

    @property
    def pool(self) -> str:
        """How the classifier pools."""
        return "avg" if self.use_mean_pooling else "token"


EncoderSettings = SwinSettings | VitSettings
ENCODERS: Mapping[str, type[SwinSettings] | type[VitSettings]] = {"swin": SwinSettings, "vit": VitSettings}


def encoder_settings(case: Case, kind: str, given: Mapping[str, Any]) -> EncoderSettings:
    """The encoder arguments of a case as a dataclass; CannotReplayError for an unknown type or argument."""
    if kind not in ENCODERS:
        raise CannotReplayError(f"{case.name}: type {kind!r} is unknown; known are {', '.join(ENCODERS)}")
    return parse(ENCODERS[kind], given, where=f"{case.name}: encoder")


def check_stride(case: Case, encoder: EncoderSettings, stride: int) -> None:
    """CannotReplayError unless the decoder's cells are the encoder's."""
    if stride != encoder.stride:
        raise CannotReplayError(
            f"{case.name}: encoder_stride is {stride}, the encoder's cells are of {encoder.stride} pixels"
        )
