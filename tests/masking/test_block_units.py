import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskpre.masking.block_units import BlockUnitMasking
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.types import Grid, Step

GOLDEN = Path(__file__).parents[1] / "golden" / "simmim" / "mask_generator"
CASES = json.loads((GOLDEN / "case.json").read_text())


def plan(masking, noise):
    return masking(Step(batch={}, views={}, noise=noise, progress=0.0))


def keyed(batch: int) -> KeyedNoise:
    return KeyedNoise(seed=0, epoch=torch.zeros(batch, dtype=torch.int64), index=torch.arange(batch))


@pytest.mark.parametrize("case", range(len(CASES["hyperparameters"]["configs"])))
def test_masks_are_the_official_generators(case):
    sizes = CASES["hyperparameters"]["configs"][case]
    order = load_file(GOLDEN / "inputs.safetensors")[f"perm{case}"]
    expected = load_file(GOLDEN / "outputs.safetensors")[f"mask{case}"]
    stride = sizes["model_patch_size"]
    masking = BlockUnitMasking(
        grid=Grid.over((sizes["input_size"],) * 2, (stride,) * 2),
        ratio=sizes["mask_ratio"],
        unit_size=sizes["mask_patch_size"],
    )
    # The noise whose order is the given permutation.
    noise = order.argsort(dim=1).double() / order.shape[1]
    found = plan(masking, GivenNoise({"mask": noise}))
    assert torch.equal(found.mask.view_as(expected).long(), expected)
    side, _, count = CASES["extras"]["rand_size_scale_maskcount"][case]
    assert (masking.units.shape, masking.num_hidden) == ((side, side), count)


def test_ids_agree_with_the_mask_and_come_unit_by_unit():
    grid = Grid((8, 8), (4, 4))
    found = plan(BlockUnitMasking(grid=grid, ratio=0.5, unit_size=8), keyed(5))
    assert torch.equal(torch.zeros_like(found.mask).scatter(1, found.hide, True), found.mask)
    assert torch.equal(torch.zeros_like(found.mask).scatter(1, found.keep, True), ~found.mask)
    rows, cols = found.hide // 8, found.hide % 8
    units = (rows // 2 * 4 + cols // 2).unflatten(1, (-1, 4))
    assert (units == units[..., :1]).all()
    assert found.unit == Grid((4, 4), (8, 8))
    assert found.settles(Grid((4, 4), (8, 8)))
    assert not found.settles(Grid((2, 2), (16, 16)))


@pytest.mark.parametrize(
    ("side", "ratio", "count"), [(10, 0.55, 56), (6, 0.6, 22), (7, 0.6, 30), (4, 0.5, 8)]
)
def test_the_ceiling_acts_on_the_floating_product(side, ratio, count):
    masking = BlockUnitMasking(grid=Grid((side, side), (32, 32)), ratio=ratio, unit_size=32)
    assert plan(masking, keyed(2)).mask.sum(dim=1).tolist() == [count, count]


def test_every_unit_is_hidden_equally_often():
    masking = BlockUnitMasking(grid=Grid((8, 8), (4, 4)), ratio=0.6, unit_size=8)
    share = plan(masking, keyed(4000)).mask.float().mean(dim=0)
    assert share.min() > 0.58
    assert share.max() < 0.67


def test_a_sample_keeps_its_mask_in_any_batch():
    masking = BlockUnitMasking(grid=Grid((8, 8), (4, 4)), ratio=0.6, unit_size=8)
    alone = KeyedNoise(seed=0, epoch=torch.zeros(1, dtype=torch.int64), index=torch.tensor([3]))
    assert torch.equal(plan(masking, keyed(6)).mask[3:4], plan(masking, alone).mask)
    other = BlockUnitMasking(grid=Grid((8, 8), (4, 4)), ratio=0.6, unit_size=8, stream="second")
    assert not torch.equal(plan(masking, keyed(6)).mask, plan(other, keyed(6)).mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, r"mask ratio 0.0 hides 0 of 16 units of 8 pixels; at least one must be hidden"),
        ({"ratio": 0.99}, r"mask ratio 0.99 hides 16 of 16 units of 8 pixels"),
        ({"unit_size": 12}, r"unit_size \(12\) must be a multiple of the encoder's cells \(4 pixels\)"),
        ({"unit_size": 2}, r"unit_size \(2\) must .* and divide the picture \(32 pixels\); nearest: 4"),
    ],
)
def test_impossible_units_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        BlockUnitMasking(**{"grid": Grid((8, 8), (4, 4)), "ratio": 0.5, "unit_size": 8, **options})
