"""Which replay belongs to which case."""

from collections.abc import Callable
from dataclasses import dataclass

from maskpre.golden import (
    color_masks,
    color_pretrain,
    hpm_losses,
    hpm_masks,
    hpm_pretrain,
    lars,
    layer_masking,
    mae_classify,
    mae_pretrain,
    maskalign_pretrain,
    sigma_pretrain,
    sigma_units,
    simmim_classify,
    simmim_masks,
    simmim_pretrain,
    spark_masks,
    spark_pretrain,
    videomae_classify,
    videomae_masks,
    videomae_pretrain,
)
from maskpre.golden.case import CannotReplayError, Case
from maskpre.golden.compare import Replay


@dataclass(frozen=True)
class Kind:
    """Cases of `system` that have the hyperparameter `marker`."""

    system: str
    marker: str
    replay: Callable[[Case], Replay]


KINDS = (
    Kind("mae", "decoder_embed_dim", mae_pretrain.replay),
    Kind("mae", "num_classes", mae_classify.replay),
    Kind("mae", "trust_coefficient", lars.replay),
    Kind("colormae", "decoder_embed_dim", color_pretrain.replay),
    Kind("colormae", "grid", color_masks.replay),
    Kind("hpm", "decoder_embed_dim", hpm_pretrain.replay),
    Kind("hpm", "settings", hpm_masks.replay),
    Kind("hpm", "M", hpm_losses.replay),
    Kind("maskalign", "fusion_type", maskalign_pretrain.replay),
    Kind("sigma", "unit", sigma_units.replay),
    Kind("sigma", "encoder_embed_dim", sigma_pretrain.replay),
    Kind("simmim", "configs", simmim_masks.replay),
    Kind("simmim", "num_classes", simmim_classify.replay),
    Kind("simmim", "mask_patch_size", simmim_pretrain.replay),
    Kind("layer_masking", "kind", layer_masking.replay),
    Kind("spark", "unit", spark_masks.replay),
    Kind("spark", "encoder", spark_pretrain.replay),
    Kind("videomae", "decoder_embed_dim", videomae_pretrain.replay),
    Kind("videomae_v2", "decoder_embed_dim", videomae_pretrain.replay),
    Kind("videomae", "num_classes", videomae_classify.replay),
    Kind("videomae_v2", "num_classes", videomae_classify.replay),
    Kind("videomae_v2", "unit", videomae_masks.replay),
)


def replay(case: Case) -> Replay:
    """Replay a case by its kind; CannotReplayError if there is none for it."""
    of_system = [kind for kind in KINDS if kind.system == case.system]
    if not of_system:
        known = ", ".join(sorted({kind.system for kind in KINDS}))
        raise CannotReplayError(f"{case.name}: system {case.system!r} is unknown; known are {known}")
    for kind in of_system:
        if kind.marker in case.hyperparameters:
            return kind.replay(case)
    markers = ", ".join(kind.marker for kind in of_system)
    raise CannotReplayError(
        f"{case.name}: no kind of {case.system} case fits; one of {markers} must be given"
    )
