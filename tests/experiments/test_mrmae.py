"""MR-MAE has no official code: it is held against MAE's golden case and a reference written by hand."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear

from maskpre.build import build_model
from maskpre.checkpoints.names_mae import pretraining_keys
from maskpre.config import compose
from maskpre.golden import mae_pretrain
from maskpre.golden.case import read_case
from maskpre.golden.pretraining import official_gradients
from maskpre.ops.noise import GivenNoise

CASE = read_case(Path(__file__).parents[1] / "golden/mae/pretrain_normpix")
TEACHER = ["teacher.weights=null", "teacher.embed_dim=16", "teacher.depth=2", "teacher.num_heads=2"]


def step_of(experiment, *overrides):
    """A backward step on the golden case's pictures, weights and noise."""
    settings = CASE.settings(mae_pretrain.Settings)
    sizes = [one for one in mae_pretrain.overrides(settings) if not one.startswith("experiment=")]
    teacher = [*TEACHER, f"teacher.patch_size={settings.patch_size}"] if experiment == "mrmae" else []
    model = build_model(compose([f"experiment={experiment}", *sizes, *teacher, *overrides])).double()
    weights = pretraining_keys(CASE.weights)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert all(name.startswith("predictors.mimic.") for name in missing)
    images = CASE.input("imgs")
    batch = {"image": images, "index": torch.arange(len(images)), "epoch": torch.zeros(len(images))}
    step = model(batch, noise=GivenNoise({"mask": CASE.input("noise")}), progress=0.0)
    step.total.backward()
    return model, step


def gradients(model, prefix=""):
    return {
        name: p.grad for name, p in model.named_parameters() if name.startswith(prefix) and p.requires_grad
    }


@pytest.fixture(scope="module")
def mimicking():
    return step_of("mrmae", "objectives.mimic.weight=2.5")


@pytest.fixture(scope="module")
def indifferent():
    return step_of("mrmae", "objectives.mimic.weight=0")


def test_without_the_mimic_loss_it_is_mae(indifferent) -> None:
    (model, step), (plain, its_step) = indifferent, step_of("mae")
    assert torch.equal(step.total, its_step.total)
    assert abs(step.total.item() - CASE.loss) <= 1e-12 * abs(CASE.loss)
    theirs = gradients(plain)
    for name, gradient in gradients(model).items():
        expected = theirs[name] if name in theirs else torch.zeros_like(gradient)
        assert torch.equal(gradient, expected), name
    ours = gradients(model)
    for name, gradient in pretraining_keys(official_gradients(CASE)).items():
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=5e-5 * gradient.abs().max().item())


def test_the_decoder_never_feels_the_mimic_loss(mimicking, indifferent) -> None:
    with_it, without = (gradients(model, "predictors.main.") for model, _ in (mimicking, indifferent))
    assert with_it
    assert all(torch.equal(gradient, without[name]) for name, gradient in with_it.items())
    blocks = [gradients(model, "encoder.blocks.") for model, _ in (mimicking, indifferent)]
    assert any(not torch.equal(blocks[0][name], blocks[1][name]) for name in blocks[0])


def test_losses_are_those_of_a_reference(mimicking) -> None:
    model, step = mimicking
    plan, latent = step.plans["student"], step.outputs["student"]
    teacher = model.teachers["teacher"]
    features = teacher.network(teacher.look(step.views["image"])).tokens
    head = model.predictors["mimic"].pred
    total = 0.0
    for sample in range(len(features)):
        seen = latent.tokens[sample]
        assert len(seen) == plan.keep.shape[1]
        for place, cell in enumerate(plan.keep[sample].tolist()):
            error = linear(seen[place], head.weight, head.bias) - features[sample, cell]
            total = total + (error**2).mean()
    mimic = total / plan.keep.numel()
    torch.testing.assert_close(step.losses["mimic"], mimic)
    torch.testing.assert_close(step.total, torch.tensor(CASE.loss, dtype=torch.float64) + 2.5 * mimic)


def test_masked_patches_are_not_mimicked(mimicking) -> None:
    model, step = mimicking
    objective, target = model.objectives["mimic"], model.targets["features"]
    encoded = step.outputs["teacher"]
    before, *_ = objective(step, target)
    for mask, same in ((step.plans["student"].mask, True), (~step.plans["student"].mask, False)):
        changed = torch.where(mask[..., None], encoded.tokens + 7.0, encoded.tokens)
        step.outputs["teacher"] = type(encoded)(changed, encoded.grid, prefix=encoded.prefix)
        after, *_ = objective(step, target)
        assert torch.equal(before, after) is same
    step.outputs["teacher"] = encoded


def test_nothing_reaches_or_stores_the_teacher(mimicking) -> None:
    model, step = mimicking
    network = model.teachers["teacher"].network
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert not step.outputs["teacher"].tokens.requires_grad
    assert not any(name.startswith("teachers") for name in model.state_dict())
    assert not any(name.startswith("teachers") for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    "variant",
    [
        ["masking=attentive", "masking.ratio=0.75"],
        ["masking=attentive", "masking.ratio=0.75", "masking.choice=top"],
        ["predictor@predictors.mimic=fused"],
        ["targets.features.layers=top2", "targets.features.normalize=whiten"],
    ],
    ids=["focused", "most attended", "fused", "layers"],
)
def test_variants_train(variant) -> None:
    model, step = step_of("mrmae", *variant)
    assert step.total.isfinite()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
