import torch

from maskpre.ops.noise import GivenNoise
from maskpre.targets.loss_map import LossMapTarget
from maskpre.types import Grid, Located, Step

GRID = Grid((2, 2), (8, 8))


def test_it_is_what_the_objective_lost_and_keeps_no_gradient() -> None:
    lost = torch.rand(1, 2, 1, requires_grad=True)
    ids = torch.tensor([[3, 1]])
    step = Step(batch={}, views={}, noise=GivenNoise({}), progress=0.0)
    step.loss_maps["pixels"] = Located(lost, GRID, ids, "masked")
    target = LossMapTarget(grid=GRID, objective="pixels")
    found = target(step)
    assert (target.dim, target.loss_of) == (1, "pixels")
    assert torch.equal(found.tokens, lost.detach())
    assert found.ids is ids
    assert not found.tokens.requires_grad
