"""Official arguments that VideoMAE's models for pre-training and fine-tuning have in common."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from maskpre.golden.case import CannotReplayError, Case


@dataclass(kw_only=True)
class VideoSettings:
    """The sizes of clips and tubelets, and the switches of blocks.

    `all_frames` is V2's name for `num_frames`; `qkv_bias` None is told from the weights. Dropout rates have
    no effect in evaluation.
    """

    img_size: int
    patch_size: int
    num_frames: int = 16
    all_frames: int | None = None
    tubelet_size: int = 2
    mlp_ratio: float = 4.0
    qkv_bias: bool | None = None
    init_values: float | None = 0.0
    cos_attn: bool = False
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    use_learnable_pos_emb: bool = False
    with_cp: bool = False

    def blocks(self) -> dict[str, Any]:
        """What this package calls the switches of blocks."""
        return {
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": "no_key" if self.qkv_bias else "none",
            "scores": "cosine" if self.cos_attn else "dot",
            "init_values": self.init_values or None,
        }


Kind = TypeVar("Kind", bound=VideoSettings)


def read_settings(case: Case, kind: type[Kind]) -> Kind:
    """The case's settings, with what they leave to the weights and to another name."""
    s = case.settings(kind)
    has_bias = any(name.endswith("blocks.0.attn.q_bias") for name in case.weights)
    return replace(
        s,
        qkv_bias=has_bias if s.qkv_bias is None else s.qkv_bias,
        num_frames=s.num_frames if s.all_frames is None else s.all_frames,
    )


def refuse_learnable_positions(case: Case, wanted: bool) -> None:
    """The official code can't run with them, so that there is nothing to be held against."""
    if wanted:
        raise CannotReplayError(
            f"{case.name}: use_learnable_pos_emb must be false; the official code fails with it, as its "
            "table has a row too many"
        )
