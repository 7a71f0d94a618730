import io
from pathlib import Path

import hydra
import pytest
import timm
import torch
from omegaconf import OmegaConf

from maskpre.errors import UserError
from maskpre.optim import AdamWRecipe, LambRecipe, Lars, LarsRecipe, SgdRecipe, WarmupCosine, lambda_lr

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "optim").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_an_optimizer_whose_state_loads_safely(path):
    recipe = hydra.utils.instantiate(OmegaConf.load(path))
    layer = torch.nn.Linear(3, 3)
    optimizer, curve = recipe.build(
        layer.named_parameters(), effective_batch=4096, total_steps=8000, steps_per_epoch=10
    )
    scheduler = lambda_lr(optimizer, curve)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    buffer = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["scheduler"]["last_epoch"] == 1
    assert max(curve(step) for step in range(8000)) == pytest.approx(
        recipe.base_lr * 4096 / recipe.lr_batch, rel=1e-2
    )


def recipe(**changes):
    return AdamWRecipe(**{"base_lr": 1e-3, "schedule": WarmupCosine(warmup_epochs=0)} | changes)


def test_layer_decay_reaches_the_optimizer():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    optimizer, curve = recipe(layer_decay=0.5, decay_policy="mae_finetune").build(
        model.named_parameters(), effective_batch=512, total_steps=10, steps_per_epoch=5
    )
    lambda_lr(optimizer, curve)
    lr = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert lr[id(model.cls_token)] == pytest.approx(2e-3 * 0.5**3)
    assert lr[id(model.blocks[0].mlp.fc1.weight)] == pytest.approx(2e-3 * 0.5**2)
    assert lr[id(model.head.weight)] == pytest.approx(2e-3)


def test_fused_and_foreach_take_the_same_step():
    results = []
    for implementation in ("fused", "foreach"):
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 4)
        optimizer, _ = recipe(implementation=implementation).build(
            layer.named_parameters(), effective_batch=256, total_steps=10, steps_per_epoch=5
        )
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        results.append(layer.weight.detach())
    torch.testing.assert_close(*results)


def test_lars_recipe_scales_with_the_batch():
    optimizer, curve = LarsRecipe(base_lr=0.1, schedule=WarmupCosine(warmup_epochs=10)).build(
        torch.nn.Linear(2, 2).named_parameters(), effective_batch=16384, total_steps=900, steps_per_epoch=10
    )
    assert isinstance(optimizer, Lars)
    assert curve(100) == pytest.approx(6.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_lr": 0.0}, r"base_lr \(0.0\) must be greater than 0"),
        ({"lr_batch": 0}, r"lr_batch \(0\) must be greater than 0"),
        ({"weight_decay": -1.0}, r"weight_decay \(-1.0\) must be at least 0"),
        ({"layer_decay": 1.5}, r"layer_decay \(1.5\) must be in \(0, 1\]"),
    ],
)
def test_values_out_of_range_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        recipe(**changes)


def _lamb(parameters, gradients, moments, step, *, decays, lr, options):
    """One step of LAMB in place, as written in the paper, with SparK's switches."""
    first, second = options["betas"]
    norm = sum((gradient**2).sum() for gradient in gradients).sqrt()
    for parameter, gradient, (mean, square), decay in zip(
        parameters, gradients, moments, decays, strict=True
    ):
        gradient = gradient / (norm / options["max_grad_norm"]).clamp(min=1)
        mean.mul_(first).add_((1 - first) * gradient)
        square.mul_(second).add_((1 - second) * gradient**2)
        correct = options["bias_correction"]
        unbiased_mean = mean / (1 - first**step if correct else 1)
        unbiased_square = square / (1 - second**step if correct else 1)
        update = unbiased_mean / (unbiased_square.sqrt() + options["eps"]) + decay * parameter
        adapts = decay > 0 or options["always_adapt"]
        parameter -= lr * (parameter.norm() / update.norm() if adapts else 1) * update


@pytest.mark.parametrize(
    "switches",
    [
        {"max_grad_norm": 0.5, "always_adapt": False, "bias_correction": True},
        {"max_grad_norm": 1e7, "always_adapt": True, "bias_correction": False},
    ],
    ids=["pretraining", "fine-tuning"],
)
def test_lamb_is_the_papers_with_sparks_switches(switches):
    options = {"betas": (0.9, 0.95), "eps": 1e-6, **switches}
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3).double()
    expected = [layer.weight.detach().clone(), layer.bias.detach().clone()]
    optimizer, _ = LambRecipe(
        base_lr=0.1,
        schedule=WarmupCosine(warmup_epochs=0),
        weight_decay=0.04,
        decay_policy="spark",
        **options,
    ).build(layer.named_parameters(), effective_batch=256, total_steps=10, steps_per_epoch=5)
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in expected]
    for step in range(1, 5):
        gradients = [torch.randn_like(one) for one in expected]
        layer.weight.grad, layer.bias.grad = (gradient.clone() for gradient in gradients)
        optimizer.step()
        _lamb(expected, gradients, moments, step, decays=(0.04, 0.0), lr=0.1, options=options)
        torch.testing.assert_close([layer.weight.detach(), layer.bias.detach()], expected)


def test_sgd_recipe_looks_ahead_only_if_asked():
    for nesterov in (True, False):
        recipe = SgdRecipe(base_lr=0.1, schedule=WarmupCosine(warmup_epochs=0), nesterov=nesterov)
        optimizer, _ = recipe.build(
            torch.nn.Linear(2, 2).named_parameters(), effective_batch=512, total_steps=9, steps_per_epoch=3
        )
        assert isinstance(optimizer, torch.optim.SGD)
        group = optimizer.param_groups[0]
        assert (group["nesterov"], group["momentum"], group["lr"]) == (nesterov, 0.9, 0.2)
