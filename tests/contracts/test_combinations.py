"""Every encoder x masking x target x predictor trains one step or is refused with a reason.

Ordinarily a selection is tried, in which every two parts that can train together do, and every reason to
refuse is given; the others are slow.
"""

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from maskpre.config import compose
from maskpre.config.library import Library
from maskpre.errors import ConfigError

GROUPS = ("encoder", "masking", "target", "predictor")
# Parts for clips, which need other data and inputs; see test_video_combinations.py.
FOR_CLIPS = ("video_vit", "tube", "running_cell", "pixels_channel_norm", "video_decoder")
# Why a combination may be refused; a new reason must be added here knowingly.
REASONS = {
    r"attention comes on \(8, 8\) cells": lambda names, hidden: (
        names["masking"] == "attentive" and names["encoder"] in CONVNETS
    ),
    r"the student has \(\d": lambda names, hidden: (
        names["target"] == "features" and names["encoder"] not in ON_TEACHERS_CELLS
    ),
    "predicts only where the encoder gives tokens": lambda names, hidden: (
        (names["predictor"] in ("linear", "dynamic_alignment") or reads_layers(names, "fused"))
        and (hidden == "drop" or names["encoder"] in ("conv_vit", *CONVNETS))
    ),
    "reads feature maps of several strides, and the encoder gives none": lambda names, hidden: (
        names["predictor"] == "unet_decoder" and names["encoder"] not in CONVNETS
    ),
    r"\d values per cell of .* are no picture": lambda names, hidden: (
        names["predictor"] == "unet_decoder" and names["target"] == "clusters"
    ),
    "predicts hidden layers of another network": lambda names, hidden: (
        names["predictor"] == "dynamic_alignment"
        and (names["target"] != "features" or names["masking"] == "hard_patches")
    ),
    "mixes hidden layers, which the encoder doesn't give": lambda names, hidden: (
        names["predictor"] == "dynamic_alignment" and names["encoder"] != "vit"
    ),
    "the encoder's hidden layers are 1 to 0": lambda names, hidden: (
        names["predictor"] == "fused" and names["encoder"] != "vit"
    ),
    "numbers of cells visible in pass 'student', but": lambda names, hidden: (
        names["masking"] == "variable_ratio"
        and (
            names["encoder"] in ("conv_vit", *CONVNETS)
            or (names["encoder"], hidden) == ("simmim_vit", "drop")
        )
    ),
}
# The small teacher has 8 x 8 cells.
ON_TEACHERS_CELLS = ("vit", "simmim_vit", "conv_vit")
CONVNETS = ("resnet", "resnet_stride32", "convnext")
# Encoders that hide cells in the one way their file says.
ONE_WAY = ("Swin", "ConvViT", "ConvNet")
# What a part needs of the configuration that it is read from.
PARTNERS = {
    "linear": ["encoder.hidden=replace"],
    "fused": ["encoder.hidden=replace"],
    "unet_decoder": ["encoder=resnet"],
    "attentive": ["teacher=timm"],
    "features": ["teacher=timm"],
    "dynamic_alignment": [
        "encoder.hidden=replace",
        "teacher=timm",
        "target=features",
        "target.layers=mean",
    ],
}
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "depth": 2,
    "depths": [1, 1, 1],
    "embed_dims": [8, 16, 32],
    "num_heads": 4,
    "num_images": 4,
    "image_size": 16,
    "window": 5,
}


def reads_layers(names: dict[str, str], predictor: str) -> bool:
    """Whether this predictor finds the hidden layers it asks for."""
    return names["predictor"] == predictor and names["encoder"] == "vit"


def shrink(node: DictConfig) -> DictConfig:
    """The part with small sizes; lists stay lists, and a width that a list of heads divides stays."""
    listed = OmegaConf.is_list(node.get("num_heads"))
    for key, value in TINY.items():
        if (
            key in node
            and OmegaConf.is_list(node[key]) == isinstance(value, list)
            and not (listed and key == "embed_dim")
        ):
            node[key] = value
    return node


def options(group: str) -> list[str]:
    """The parts of a group that pictures can have."""
    return [name for name in Library().options(group) if name not in FOR_CLIPS]


@pytest.fixture(scope="module")
def bases() -> dict[str, DictConfig]:
    """Configurations by masking: a masking may bring passes and predictors of its own."""
    return {name: compose([f"masking={name}", *PARTNERS.get(name, [])]) for name in options("masking")}


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, DictConfig]]:
    """Every file of the four groups, small."""
    found = {}
    for group in GROUPS:
        found[group] = {
            name: shrink(compose([f"{group}={name}", *PARTNERS.get(name, [])])[group].copy())
            for name in options(group)
        }
    found["teacher"] = {"timm": shrink(compose(["masking=attentive", "teacher=timm"]).teacher.copy())}
    return found


def reasons(names: dict[str, str], hidden: str | None) -> list[str]:
    """Why a combination is to be refused; none if it trains."""
    return [reason for reason, applies in REASONS.items() if applies(names, hidden)]


def selection(everything: list[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Combinations that cover all trainable pairs of parts (greedily: new pairs first) and all reasons."""
    given: dict[str, tuple[str, ...]] = {}
    pairs: dict[tuple[str, ...], set[tuple[Any, ...]]] = {}
    for names in everything:
        chosen = dict(zip(GROUPS, names, strict=True))
        refusals = [reasons(chosen, hidden) for hidden in ("drop", "replace")]
        for refusal in refusals:
            given.update({reason: names for reason in refusal[:1] if reason not in given})
        if not all(refusals):
            pairs[names] = set(combinations(enumerate(names), 2))
    missing, found = set().union(*pairs.values()), set(given.values())
    while missing:
        best = max(pairs, key=lambda names: len(pairs[names] & missing))
        missing -= pairs[best]
        found.add(best)
    return found


def cases() -> list[Any]:
    """All combinations, those beyond the selection marked slow."""
    everything = list(product(*(options(group) for group in GROUPS)))
    quick = selection(everything)
    return [
        pytest.param(names, id="-".join(names), marks=() if names in quick else pytest.mark.slow)
        for names in everything
    ]


def assemble(
    bases: dict[str, DictConfig],
    parts: dict[str, dict[str, DictConfig]],
    names: dict[str, str],
    hidden: str | None,
) -> DictConfig:
    cfg = bases[names["masking"]].copy()
    for group, name in names.items():
        cfg[group] = parts[group][name].copy()
    if names["masking"] == "attentive" or names["target"] == "features":
        cfg.teacher = parts["teacher"]["timm"].copy()
    if names["predictor"] == "dynamic_alignment" and names["target"] == "features":
        cfg.target.layers = "mean"
    if hidden is not None:
        cfg.encoder.hidden = hidden
    return cfg


def hidden_of(node: DictConfig) -> list[str | None]:
    """Both ways to hide cells, for encoders that have both."""
    return [None] if node._target_.rpartition(".")[2] in ONE_WAY else ["drop", "replace"]


@pytest.mark.parametrize("names", cases())
def test_combination_trains_or_is_refused_with_a_reason(
    bases: dict[str, DictConfig],
    parts: dict[str, dict[str, DictConfig]],
    names: tuple[str, ...],
    trains_or_is_refused: Callable[[DictConfig, Sequence[str]], None],
) -> None:
    chosen = dict(zip(GROUPS, names, strict=True))
    for hidden in hidden_of(parts["encoder"][chosen["encoder"]]):
        trains_or_is_refused(assemble(bases, parts, chosen, hidden), reasons(chosen, hidden))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["masking=tube"], r"tubes need cells of \(frames, rows, columns\), the encoder's are \(8, 8\)"),
        (
            ["masking=running_cell", "masking@masking.encoder=random"],
            r"even rows and columns, .* \(8, 8\) in 2",
        ),
        (
            ["encoder=video_vit", "encoder.num_frames=4"],
            r"takes clips .* make \(64, 64\); use e.g. data=demo_video",
        ),
        (["inputs=video"], "which are pictures; use inputs=image"),
        (["data=demo_video"], "which are clips; use inputs=video"),
        (["data=demo_video", "inputs=video"], "takes pictures .* use e.g. encoder=video_vit"),
    ],
)
def test_video_parts_refuse_pictures(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compose(overrides)
