"""One step of training, which every combination must pass, or be refused with a known reason."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from maskpre.build import build_model
from maskpre.errors import ConfigError
from maskpre.model import MaskedModel
from maskpre.ops.noise import KeyedNoise
from maskpre.optim import OptimRecipe, build_param_groups


def batch_of(cfg: DictConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = cfg.data.image_size
    clips = "num_frames" in cfg.encoder
    size = (cfg.encoder.num_frames, side, side) if clips else (side, side)
    shape = (2, cfg.data.channels, *size)
    return {
        "video" if clips else "image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        "index": torch.tensor([3, 8]),
        "epoch": torch.tensor([0, 1]),
        "label": torch.tensor([-1, -1]),
    }


def one_step(model: MaskedModel, cfg: DictConfig) -> None:
    """Loss and gradients are sound, all that can learn gets one, and nothing frozen moves."""
    batch = batch_of(cfg)
    recipe: OptimRecipe = instantiate(cfg.optim)
    groups = build_param_groups(
        model.named_parameters(), lr=1e-3, weight_decay=recipe.weight_decay, policy=recipe.decay_policy
    )
    optimizer = recipe.optimizer(groups, 1e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step = model(batch, noise=KeyedNoise(0, batch["epoch"], batch["index"]), progress=0.9)
    assert step.total.isfinite()
    assert 0 < step.plans["student"].mask.float().mean() < 1
    step.total.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}
    assert next(name for name, value in model.named_parameters() if value.requires_grad) in changed
    assert all(model.get_parameter(name).requires_grad for name in changed)


def one_step_or_refusal(cfg: DictConfig, expected: Sequence[str]) -> None:
    """It is refused with the first reason expected; where none is, it trains."""
    torch.manual_seed(0)
    if expected:
        with pytest.raises(ConfigError, match=expected[0]):
            build_model(cfg)
    else:
        one_step(build_model(cfg), cfg)


@pytest.fixture(scope="session")
def trains_or_is_refused() -> Callable[[DictConfig, Sequence[str]], None]:
    return one_step_or_refusal
