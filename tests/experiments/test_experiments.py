"""What every experiment sets, and what its parameters are, against committed text.

After a change that is meant: UPDATE_GOLDEN=1 python -m pytest tests/experiments, and read the difference.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from maskpre.build import build_model
from maskpre.config import compose
from maskpre.config.library import Library
from maskpre.model import MaskedModel
from maskpre.optim import OptimRecipe, build_param_groups

GOLDEN = Path(__file__).parent / "golden"
# All encoder blocks of these start alike: two are measured, the shapes are those of the whole model.
SMALL = ["encoder.depth=2"]
ALIKE = {
    "paper/mae_vit_b": SMALL,
    "paper/mae_vit_l": SMALL,
    "paper/mae_vit_h": SMALL,
    "paper/colormae_vit_b": SMALL,
    "paper/hpm_vit_b": SMALL,
    "paper/hpm_vit_l": SMALL,
    **{f"paper/videomae_vit_{size}": SMALL for size in "sblh"},
    **{f"paper/videomae_v2_vit_{size}": SMALL for size in "blhg"},
    **{
        f"paper/sigma_vit_{run}": [*SMALL, "teacher.teacher.depth=1"]
        for run in ("b_k400", "b_ssv2", "s_ssv2")
    },
    "paper/mrmae_vit_b": [*SMALL, "teacher.depth=1"],
    "paper/mrmae_convvit_b": ["encoder.depths=[2,2,2]", "teacher.depth=1"],
    # Their teacher would have to be trained first.
    "maskalign": ["teacher.weights=null"],
    "mrmae": ["teacher.weights=null"],
    # Every layer of the student and of the teacher has a part in the alignment.
    "paper/maskalign_vit_b": ["teacher.mlp_ratio=0.1"],
    "paper/maskalign_vit_l": ["teacher.mlp_ratio=0.1"],
    "paper/maskalign_vit_l_clip_l": ["teacher.mlp_ratio=0.1"],
}
# Published recipes that need a file of a teacher's weights, and how to do without.
TAUGHT = {
    "paper/maskalign_": "teacher.weights=null",
    "paper/mrmae_": "teacher.weights=null",
    "paper/sigma_": "teacher.teacher.weights=null",
}


@dataclass(frozen=True)
class Row:
    """One parameter, or several blocks' worth of the same one."""

    name: str
    facts: str
    std: float
    numel: int

    def matches(self, other: "Row") -> bool:
        """Equal but for the error of measuring a deviation on so many draws (4 standard errors)."""
        tolerance = 0.01 + 4 / (2 * self.numel) ** 0.5
        return (self.name, self.facts) == (other.name, other.facts) and abs(self.std - other.std) <= (
            tolerance * max(self.std, other.std)
        )

    def __str__(self) -> str:
        return f"{self.name:60} {self.facts:40} std {self.std:.3g}"


def flatten(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from flatten(child, f"{path}.{key}" if path else str(key))
    else:
        yield f"{path}: {value}"


def facts(model: MaskedModel, cfg: DictConfig) -> dict[str, str]:
    """Shape, share of the learning rate and weight decay of every parameter."""
    recipe: OptimRecipe = instantiate(cfg.optim)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_param_groups(
        model.named_parameters(), lr=1.0, weight_decay=recipe.weight_decay, policy=recipe.decay_policy
    )
    found = {name: f"{list(p.shape)} frozen" for name, p in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            rates = f"lr x{group['lr_scale']:g} decay {group['weight_decay']:g}"
            found[names[id(parameter)]] = f"{list(parameter.shape)} {rates}"
    return found


def measure(cfg: DictConfig) -> dict[str, tuple[float, int]]:
    """The deviation of every parameter from zero as a run starts, and its size."""
    torch.manual_seed(0)
    model = build_model(cfg)
    return {
        name: (p.detach().square().mean().sqrt().item(), p.numel()) for name, p in model.named_parameters()
    }


def first_blocks(name: str) -> str:
    """The name of the measured parameter that stands for one of a larger model."""
    return re.sub(r"^(averages\.\w+\.)?encoder\.(blocks3?)\.\d+\.", r"\1encoder.\2.1.", name)


def rows(model: MaskedModel, cfg: DictConfig, measured: dict[str, tuple[float, int]]) -> list[Row]:
    return [
        Row(name, fact, *(measured[name] if name in measured else measured[first_blocks(name)]))
        for name, fact in facts(model, cfg).items()
    ]


def merge(one: list[Row]) -> list[Row]:
    """Runs of blocks that agree, as one row each: blocks.{0..11}."""
    merged: dict[str, list[tuple[int, Row]]] = {}
    for row in one:
        match = re.fullmatch(r"(.*blocks)\.(\d+)\.(.*)", row.name)
        key, number = (f"{match[1]}.{{}}.{match[3]}", int(match[2])) if match else (row.name, 0)
        merged.setdefault(key, []).append((number, row))
    return [row for key, found in merged.items() for row in merge_runs(key, found)]


def merge_runs(key: str, found: list[tuple[int, Row]]) -> Iterator[Row]:
    while found:
        first, row = found[0]
        alike = [(n, r) for n, r in found if Row(row.name, r.facts, r.std, r.numel).matches(row)]
        last = max(n for n, _ in alike)
        found = [pair for pair in found if pair not in alike]
        numbers = f"{{{first}..{last}}}" if last > first else str(first)
        yield Row(key.format(numbers), row.facts, sum(r.std for _, r in alike) / len(alike), row.numel)


def describe(experiment: str) -> tuple[str, list[Row]]:
    overrides = [f"experiment={experiment}", *(["data.root=IMAGENET"] if "paper/" in experiment else [])]
    overrides += [without for start, without in TAUGHT.items() if experiment.startswith(start)]
    cfg = compose(overrides)
    with torch.device("meta"):
        model = build_model(cfg)
    small = compose([*overrides, *ALIKE[experiment]]) if experiment in ALIKE else cfg
    # What is watched and logged changes nothing of what is learnt.
    config = {
        key: value for key, value in OmegaConf.to_container(cfg).items() if key not in ("callbacks", "logger")
    }
    text = "\n".join(flatten(config))
    return text, merge(rows(model, cfg, measure(small)))


def read(path: Path) -> tuple[str, list[Row]]:
    config, _, table = path.read_text().partition("\n\n")
    found = []
    for line in table.strip().splitlines():
        name, fact, std, numel = re.fullmatch(r"(\S+) +(.*?) +std (\S+) of (\d+)", line).groups()
        found.append(Row(name, fact, float(std), int(numel)))
    return config, found


@pytest.mark.parametrize("experiment", Library().options("experiment"))
def test_experiment_is_as_committed(experiment: str) -> None:
    path = GOLDEN / f"{experiment}.txt"
    config, table = describe(experiment)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config + "\n\n" + "".join(f"{row} of {row.numel}\n" for row in table))
    golden_config, golden_table = read(path)
    assert config.splitlines() == golden_config.splitlines()
    assert [(row.name, row.facts) for row in table] == [(row.name, row.facts) for row in golden_table]
    unlike = [
        f"{ours}, committed {theirs.std}"
        for ours, theirs in zip(table, golden_table, strict=True)
        if not ours.matches(theirs)
    ]
    assert unlike == []


def test_no_text_is_left_of_experiments_that_are_gone() -> None:
    kept = {path.relative_to(GOLDEN).with_suffix("").as_posix() for path in GOLDEN.rglob("*.txt")}
    assert kept == set(Library().options("experiment"))
