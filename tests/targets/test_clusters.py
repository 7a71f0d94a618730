from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from maskpre.build import build_model
from maskpre.checkpoints.load import load_into, load_model
from maskpre.config import compose
from maskpre.errors import ConfigError
from maskpre.losses.swapped_assignments import SwappedAssignments
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.targets.clusters import ClusterTarget
from maskpre.targets.pixels import PixelTarget
from maskpre.types import Grid, Step

GRID = Grid((4, 4), (4, 4))
OFFICIAL = Path(__file__).parents[1] / "golden/sigma/mlp_swav/weights.safetensors"
SMALL = [
    "experiment=mae",
    "target=clusters",
    "data.image_size=32",
    "encoder.depth=2",
    "encoder.embed_dim=32",
    "predictor.embed_dim=32",
    "target.num_prototypes=10",
    "target.hidden_dims=[24,20]",
    "target.dim=12",
]


def make(**options):
    given = {"num_prototypes": 7, "dim": 6, "hidden_dims": [8], **options}
    return ClusterTarget(
        grid=GRID,
        passes={},
        values=partial(PixelTarget, in_chans=3, normalize="patch"),
        loss=SwappedAssignments(),
        **given,
    ).double()


def batch(size=4):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "index": torch.arange(size),
        "epoch": torch.zeros(size, dtype=torch.int64),
    }


def run(model, given=None):
    given = batch() if given is None else given
    step = model(given, noise=KeyedNoise(0, given["epoch"], given["index"]), progress=0.0)
    step.total.backward()
    return step


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = build_model(compose(SMALL)).double()
    return model, run(model)


def gradient(model, name):
    return model.get_parameter(name).grad


def test_values_are_those_of_the_inner_target():
    target = make()
    views = {"image": torch.randn(2, 3, 16, 16, dtype=torch.float64)}
    step = Step(batch={}, views=views, noise=GivenNoise({}), progress=0.0)
    assert (target.dim, target.reads) == (6, {"image": 3})
    assert torch.equal(target(step).tokens, target.values(step).tokens)


def test_scores_are_cosines_with_unit_prototypes():
    target = make()
    with torch.no_grad():
        target.prototypes.mul_(torch.arange(1, 8)[:, None])
    predicted, wanted = (torch.randn(2, 5, width, dtype=torch.float64) for width in (6, 48))
    found = target.compare(predicted, wanted)
    sides = (predicted, target.projection(wanted))
    for scores, side in zip(found, sides, strict=True):
        expected = nn.functional.cosine_similarity(side[:, :, None], target.prototypes[None, None], dim=-1)
        torch.testing.assert_close(scores, expected)


def test_gradients_of_prototypes_are_those_at_unit_length():
    target, wanted = make(), torch.randn(2, 5, 48, dtype=torch.float64)
    unit = target.prototypes.detach().clone()
    factors = torch.randn(2, 5, 7, dtype=torch.float64)

    def prototype_gradient():
        (target.compare(wanted[..., :6], wanted)[1] * factors).sum().backward()
        found, target.prototypes.grad = target.prototypes.grad, None
        return found

    expected = prototype_gradient()
    with torch.no_grad():
        target.prototypes.mul_(3.0)
    torch.testing.assert_close(prototype_gradient(), expected)
    target.after_step()
    torch.testing.assert_close(target.prototypes.detach(), unit)


def test_each_side_teaches_its_own_part():
    target = make()
    predicted = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    of_prediction, of_value = target.compare(predicted, torch.randn(2, 5, 48, dtype=torch.float64))
    learners = [predicted, target.prototypes, *target.projection.parameters()]
    reached = [
        [g is not None for g in torch.autograd.grad(scores.sum(), learners, allow_unused=True)]
        for scores in (of_prediction, of_value)
    ]
    assert reached == [[True, False, *[False] * 4], [False, True, *[True] * 4]]


def test_without_dim_values_are_taken_as_they_are():
    target = make(dim=None, hidden_dims=[])
    assert target.dim == 48
    assert [name for name, _ in target.named_parameters()] == ["prototypes"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_prototypes": 1}, "num_prototypes must be at least 2, got 1"),
        ({"dim": None}, r"hidden_dims=\[8\] need dim"),
    ],
)
def test_senseless_options_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        make(**options)


def test_any_experiment_can_have_it(trained):
    model, step = trained
    objective, target = model.objectives["main"], model.targets["main"]
    prediction, plan = step.predictions["student"]["main"], step.plans["student"]
    assert prediction.tokens.shape == (4, 12, 12)
    scores = target.compare(
        prediction.tokens, target(step).tokens.gather(1, plan.hide[..., None].expand(-1, -1, 192))
    )
    expected = target.loss(*scores, None)
    torch.testing.assert_close(step.total, expected.value * objective.weight)
    assert set(step.metrics["main"]) == set(expected.metrics)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.targets.parameters())


def test_prototypes_stay_unit_through_a_step(trained):
    model, _ = trained
    with torch.no_grad():
        model.targets["main"].prototypes.add_(0.1)
    model.after_step(0.0)
    lengths = model.targets["main"].prototypes.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_it_takes_features_of_a_teacher():
    overrides = [
        *SMALL[:6],
        "teacher=timm",
        "teacher.embed_dim=48",
        "teacher.depth=1",
        "target@target.values=features",
        "target.values.normalize=tokens",
        "target.dim=null",
        "target.hidden_dims=[]",
    ]
    model = build_model(compose(overrides))
    step = run(model)
    assert model.targets["main"].dim == 48
    assert step.total.isfinite()
    assert gradient(model, "targets.main.prototypes").abs().max() > 0


@pytest.mark.parametrize("kind", ["official", "own"])
def test_a_projection_of_another_run_stays_as_it_is(kind, tmp_path, trained) -> None:
    path = str(tmp_path / "weights.pth")
    model, _ = trained
    state = {name: value.float() for name, value in model.state_dict().items()}
    if kind == "own":
        torch.save({"state_dict": state, "config": {"encoder": {}}}, path)
    else:
        official = load_file(OFFICIAL)
        names = {"projection.0": "head.0", "projection.2": "head.2", "projection.4": "head.4"}
        kept = {name: value for name, value in official.items() if not name.startswith("head.")}
        for ours, theirs in names.items():
            for leaf in ("weight", "bias"):
                kept[f"{theirs}.{leaf}"] = state[f"targets.main.{ours}.{leaf}"]
        torch.save({"model": kept}, path)
    taken = build_model(compose([*SMALL, f"target.projection_weights={path}"]))
    assert torch.equal(taken.targets["main"].projection[2].weight, state["targets.main.projection.2.weight"])
    run(taken)
    assert all(p.grad is None for p in taken.targets["main"].projection.parameters())
    assert gradient(taken, "targets.main.prototypes") is not None
    with pytest.raises(
        ConfigError, match=r"projection of layers 192 to 24, 24 to 20, 20 to 12 where .* make .* 24 to 21"
    ):
        compose([*SMALL, "target.hidden_dims=[24,21]", f"target.projection_weights={path}"])


def test_a_fixed_projection_outlives_its_file_and_other_weights(tmp_path, trained):
    model, _ = trained
    state = {name: value.float() for name, value in model.state_dict().items()}
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": state, "config": {"encoder": {}}}, path)
    cfg = compose([*SMALL, f"target.projection_weights={path}"])
    taken = build_model(cfg)
    name = "targets.main.projection.0.weight"
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {**state, name: state[name] + 1}, "config": {"encoder": {}}}, other)
    report = load_into(taken, str(other))
    assert torch.equal(taken.state_dict()[name], state[name])
    assert report.left_out[name] == "the configuration fixes it"
    own = tmp_path / "own.pth"
    torch.save({"state_dict": taken.state_dict(), "config": OmegaConf.to_container(cfg, resolve=True)}, own)
    path.unlink()
    assert torch.equal(load_model(str(own)).state_dict()[name], state[name])


def test_its_loss_is_for_clusters_only():
    with pytest.raises(
        ConfigError, match="SwappedAssignments compares scores with clusters, which target 'main'"
    ):
        compose(["experiment=mae", "loss=swapped_assignments"])
