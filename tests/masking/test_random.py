"""Uniformly random cells."""

import torch

from maskpre.masking.random import RandomMasking
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.types import Grid, Step

GRID = Grid((4, 4), (16, 16))


def step(noise, samples):
    return Step(batch={"index": torch.arange(samples)}, views={}, noise=noise, progress=0.0)


def test_ranks_the_noise_of_its_stream():
    given = torch.rand(3, 16, generator=torch.Generator().manual_seed(0))
    masking = RandomMasking(grid=GRID, ratio=0.75, stream="second")
    plan = masking(step(GivenNoise({"second": given}), 3))
    assert torch.equal(plan.keep, given.argsort(dim=1)[:, :4])


def test_every_cell_is_hidden_equally_often():
    index = torch.arange(4000)
    noise = KeyedNoise(0, epoch=torch.zeros_like(index), index=index)
    share = RandomMasking(grid=GRID, ratio=0.75)(step(noise, 4000)).mask.float().mean(dim=0)
    # 4.5 standard deviations of a share of 4000 draws.
    assert (share - 0.75).abs().max() < 4.5 * (0.75 * 0.25 / 4000) ** 0.5
