import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskpre.optim import Lars

CASE = Path(__file__).parents[1] / "golden" / "mae" / "lars_step"


def test_lars_repeats_the_official_steps():
    settings = json.loads((CASE / "case.json").read_text())["hyperparameters"]
    gradients, expected = (load_file(CASE / f"{part}.safetensors") for part in ("inputs", "outputs"))
    params = {
        name: torch.nn.Parameter(tensor.double())
        for name, tensor in load_file(CASE / "weights.safetensors").items()
    }
    steps = settings.pop("steps")
    optimizer = Lars(params.values(), **settings)
    for step in range(steps):
        for name, param in params.items():
            param.grad = gradients[f"step{step}/{name}"].double()
        optimizer.step()
        for name, param in params.items():
            torch.testing.assert_close(
                param.detach(), expected[f"step{step}/{name}"].double(), rtol=1e-6, atol=1e-7
            )


def test_weight_decay_and_trust_ratio_spare_vectors():
    matrix, vector = torch.nn.Parameter(torch.full((2, 2), 3.0)), torch.nn.Parameter(torch.full((2,), 3.0))
    optimizer = Lars([matrix, vector], lr=1.0, weight_decay=0.5, momentum=0.0, trust_coefficient=0.1)
    matrix.grad, vector.grad = torch.ones_like(matrix), torch.ones_like(vector)
    optimizer.step()
    # update = 1 + 0.5 * 3 everywhere, rescaled to 0.1 * |p|: each entry moves by 0.1 * 3
    assert matrix.detach() == pytest.approx(torch.full((2, 2), 2.7).numpy(), rel=1e-6)
    assert vector.detach() == pytest.approx(torch.full((2,), 2.0).numpy())


def test_parameters_without_gradient_stay():
    still = torch.nn.Parameter(torch.ones(2, 2))
    Lars([still], lr=1.0).step()
    assert torch.equal(still, torch.ones(2, 2))
