"""Every masking x target x predictor x switch of the encoder trains one step on clips or is refused.

A selection is tried, in which every two parts that can train together do, and every reason is given once.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product
from typing import Any

import pytest
from omegaconf import DictConfig

from maskpre.config import compose
from maskpre.config.library import Library
from maskpre.errors import ConfigError

SIZES = [
    "data.image_size=32",
    "data.num_frames=4",
    "encoder.embed_dim=16",
    "encoder.depth=2",
    "encoder.num_heads=2",
    "encoder.mlp_ratio=2",
    "encoder.hidden=replace",
]
CLIPS = ["data=demo_video", "inputs=video", "encoder=video_vit", *SIZES]
TEACHER = [
    "teacher=frames",
    "teacher.teacher.embed_dim=24",
    "teacher.teacher.depth=2",
    "teacher.teacher.num_heads=2",
]
VIEW = "target.view=video"
CLUSTERS = ["target=clusters", "target.num_prototypes=4", "target.hidden_dims=[16]", "target.dim=8"]
DECODER = ["embed_dim=16", "depth=1", "num_heads=2", "mlp_ratio=2"]


def tubes(spatial: str, *more: str) -> list[str]:
    return ["masking=tube", f"masking@masking.spatial={spatial}", *more]


def decoder(name: str, at: str = "predictor") -> list[str]:
    """A small decoder; `at` is where it stands."""
    chosen = f"predictor={name}" if at == "predictor" else f"predictor@{at}={name}"
    return [chosen, *(f"{at}.{size}" for size in DECODER)]


MASKINGS = {
    "random": ["masking=random"],
    "grid": ["masking=grid"],
    "spark": ["masking=spark"],
    "variable_ratio": ["masking=variable_ratio"],
    "running_cell": ["masking=running_cell"],
    "hard_patches": ["masking=hard_patches"],
    "tube": ["masking=tube"],
    "tube_color": tubes("color", "masking.spatial.num_images=4", "masking.spatial.image_size=16"),
    "tube_blocks": tubes("blocks", "masking.spatial.unit_size=16"),
    "tube_variable_ratio": tubes("variable_ratio"),
    "tube_hard_patches": tubes("hard_patches"),
}
TARGETS = {
    "pixels": ["target=pixels", VIEW],
    "pixels_patch_norm": ["target=pixels_patch_norm", VIEW],
    "pixels_channel_norm": ["target=pixels_channel_norm"],
    "clusters": [*CLUSTERS, "target@target.values=pixels_channel_norm"],
    "features": ["target=features", *TEACHER],
    "clusters_features": [*CLUSTERS, "target@target.values=features", *TEACHER],
}
PREDICTORS = {
    "video_decoder": decoder("video_decoder"),
    "memory": [
        "predictor=memory",
        "predictor.size=4",
        *decoder("video_decoder", "predictor.predictor"),
    ],
    "mae_decoder": [*decoder("mae_decoder"), "predictor.position=sincos_flat"],
    "linear": ["predictor=linear"],
    "fused": ["predictor=fused"],
    "dynamic_alignment": ["predictor=dynamic_alignment", "target=features", "target.layers=mean", *TEACHER],
}
GROUPS = (MASKINGS, TARGETS, PREDICTORS)
SWITCHES = {
    "hidden": ("drop", "replace"),
    "position": ("sincos", "learned", "none"),
    "scores": ("dot", "cosine"),
}
# Why a combination may be refused; a new reason must be added here knowingly.
REASONS = {
    "predicts only where the encoder gives tokens": lambda masking, target, predictor, hidden: (
        predictor in ("linear", "fused", "dynamic_alignment") and hidden == "drop"
    ),
    "predicts hidden layers of another network": lambda masking, target, predictor, hidden: (
        predictor == "dynamic_alignment" and (target != "features" or masking.endswith("hard_patches"))
    ),
}
# What no clip can have.
REFUSED = [
    (["masking=blocks"], r"unit_size \(32\) must be a multiple of the encoder's cells .* and divide"),
    (["masking=color"], r"needs a grid of rows and columns, got one of shape \(2, 4, 4\)"),
    (["masking=attentive", *TEACHER], "has no class token whose attention can be read"),
    (tubes("attentive", *TEACHER), "reads the inside of another network has none for tubes"),
    (tubes("tube"), r"tubes need cells of \(frames, rows, columns\), the encoder's are \(4, 4\)"),
    (["target=pixels"], "reads view 'image', the inputs make only video"),
    (["target=pixels_window_norm", VIEW], "normalize='window' is for pictures"),
    (["predictor=mae_decoder"], "position 'sincos' is for pictures; for clips use 'sincos_flat'"),
    (["predictor=unet_decoder"], "reads feature maps of several strides, and the encoder gives none"),
]


def reasons(names: tuple[str, ...]) -> list[str]:
    """Why a combination is to be refused; none if it trains."""
    return [reason for reason, applies in REASONS.items() if applies(*names[:4])]


def selection() -> list[tuple[str, ...]]:
    """Combinations that cover all trainable pairs of parts (greedily: new pairs first) and all reasons."""
    everything = list(product(*GROUPS, *SWITCHES.values()))
    given = {reason: names for names in everything for reason in reasons(names)[:1]}
    pairs = {names: set(combinations(enumerate(names), 2)) for names in everything if not reasons(names)}
    missing, found = set().union(*pairs.values()), set(given.values())
    while missing:
        best = max(pairs, key=lambda names: len(pairs[names] & missing))
        missing -= pairs[best]
        found.add(best)
    return [names for names in everything if names in found]


def parts_of(group: str, overrides: Iterable[str]) -> set[str]:
    """The files of a group that some overrides choose."""
    found = (re.fullmatch(rf"{group}(@\S+)?=(\w+)", override) for override in overrides)
    return {match[2] for match in found if match}


@pytest.fixture(scope="module")
def bases() -> dict[str, DictConfig]:
    """Configurations by masking: a masking may bring passes and predictors of its own."""
    plain = [*TARGETS["pixels_channel_norm"], *PREDICTORS["video_decoder"]]
    return {name: compose([*CLIPS, *plain, *overrides]) for name, overrides in MASKINGS.items()}


@pytest.fixture(scope="module")
def parts() -> dict[str, DictConfig]:
    """Targets and predictors by name, and the teacher of frames."""
    plain, found = ["masking=tube", *TARGETS["pixels_channel_norm"]], {}
    for name, overrides in TARGETS.items():
        found[name] = compose([*CLIPS, *plain, *PREDICTORS["video_decoder"], *overrides])
    for name, overrides in PREDICTORS.items():
        found[name] = compose([*CLIPS, *plain, *overrides])
    chosen: dict[str, Any] = {name: found[name].target for name in TARGETS}
    chosen |= {name: found[name].predictor for name in PREDICTORS}
    return {**chosen, "teacher": found["features"].teacher}


def assemble(
    bases: dict[str, DictConfig], parts: dict[str, DictConfig], names: tuple[str, ...]
) -> DictConfig:
    masking, target, predictor, *switches = names
    cfg = bases[masking].copy()
    cfg.target, cfg.predictor = parts[target].copy(), parts[predictor].copy()
    if "features" in target:
        cfg.teacher = parts["teacher"].copy()
    if (target, predictor) == ("features", "dynamic_alignment"):
        cfg.target.layers = "mean"
    cfg.encoder.update(zip(SWITCHES, switches, strict=True))
    return cfg


@pytest.mark.parametrize("names", selection(), ids="-".join)
def test_combination_trains_or_is_refused_with_a_reason(
    bases: dict[str, DictConfig],
    parts: dict[str, DictConfig],
    names: tuple[str, ...],
    trains_or_is_refused: Callable[[DictConfig, Sequence[str]], None],
) -> None:
    trains_or_is_refused(assemble(bases, parts, names), reasons(names))


@pytest.mark.parametrize(("overrides", "told"), REFUSED)
def test_what_clips_cannot_have_is_refused(overrides: list[str], told: str) -> None:
    plain = ["masking=tube", *TARGETS["pixels_channel_norm"], *PREDICTORS["linear"]]
    with pytest.raises(ConfigError, match=told):
        compose([*CLIPS, *plain, *overrides])


@pytest.mark.parametrize("group", ["masking", "target", "predictor"])
def test_every_part_is_tried_on_clips(group: str) -> None:
    tried = [o for chosen in GROUPS for overrides in chosen.values() for o in overrides]
    refused = [override for overrides, _ in REFUSED for override in overrides]
    assert parts_of(group, [*tried, *refused]) == set(Library().options(group))
