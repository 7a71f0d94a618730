"""SimMIM's mask generator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskpre.golden.case import Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.masking.block_units import BlockUnitMasking
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, Step


@dataclass
class Generator:
    """Arguments of one official generator; sizes in pixels."""

    input_size: int
    mask_patch_size: int
    model_patch_size: int
    mask_ratio: float


@dataclass
class Settings:
    """The generators of a case."""

    configs: list[Generator]


def replay(case: Case) -> Replay:
    """The masks from the permutations that were drawn."""
    masks: Tensors = {}
    sizes = []
    for i, generator in enumerate(case.settings(Settings).configs):
        masking = _masking(generator)
        masks[f"mask{i}"] = _mask(masking, case.input(f"perm{i}"))
        scale = generator.mask_patch_size // generator.model_patch_size
        sizes.append([masking.units.shape[0], scale, masking.num_hidden])
    return Replay(tensors=masks, extras={"rand_size_scale_maskcount": sizes})


def _masking(generator: Generator) -> BlockUnitMasking:
    side, patch = generator.input_size, generator.model_patch_size
    return BlockUnitMasking(
        grid=Grid.over((side, side), (patch, patch)),
        ratio=generator.mask_ratio,
        unit_size=generator.mask_patch_size,
    )


def _mask(masking: BlockUnitMasking, permutation: Tensor) -> Tensor:
    """The mask when the noise's ascending order is the given permutation of the units."""
    noise = GivenNoise({"mask": permutation.argsort(dim=1).double()})
    plan = masking(Step(batch={}, views={}, noise=noise, progress=0.0))
    return plan.mask.unflatten(1, masking.grid.shape).to(torch.int64)
