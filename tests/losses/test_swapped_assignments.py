import pytest
import torch
from torch.nn.functional import cross_entropy

from maskpre.losses.swapped_assignments import SwappedAssignments
from maskpre.ops.sinkhorn import sinkhorn

GENERATOR = torch.Generator().manual_seed(0)


def cosines(*shape):
    return torch.rand(*shape, generator=GENERATOR, dtype=torch.float64) * 2 - 1


@pytest.fixture
def scores():
    return cosines(2, 12, 5).requires_grad_(), cosines(2, 12, 5).requires_grad_()


def assigned(scores, eps=0.05):
    flat = scores.detach().flatten(0, 1)
    return sinkhorn(flat, eps=eps, iterations=10).argmax(dim=1)


def test_either_side_predicts_the_others_cluster(scores):
    predicted, target = scores
    value, per_token, metrics = SwappedAssignments()(predicted, target, None)
    first = cross_entropy(target.flatten(0, 1) / 0.1, assigned(predicted))
    second = cross_entropy(predicted.flatten(0, 1) / 0.1, assigned(target))
    torch.testing.assert_close(value, first + second)
    torch.testing.assert_close(per_token.mean(), value)
    torch.testing.assert_close(metrics["target_loss"], first)
    torch.testing.assert_close(metrics["predicted_loss"], second)
    gradients = torch.autograd.grad(value, scores)
    for found, expected in zip(gradients, torch.autograd.grad(first + second, scores), strict=True):
        torch.testing.assert_close(found, expected)


def test_options_count(scores):
    value = SwappedAssignments(temperature=0.2, eps=0.5, iterations=1)(*scores, None).value
    assert value.item() != pytest.approx(SwappedAssignments()(*scores, None).value.item())


def test_only_the_region_is_assigned_and_counted(scores):
    weight = torch.zeros(2, 12, 1, dtype=torch.float64)
    weight[:, ::2] = 1.0
    inside = [side[:, ::2] for side in scores]
    loss = SwappedAssignments()
    expected, found = loss(*inside, None), loss(*scores, weight)
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.per_token[:, ::2], expected.per_token)
    for name, value in expected.metrics.items():
        torch.testing.assert_close(found.metrics[name], value)
    (gradient,) = torch.autograd.grad(found.value, scores[0])
    assert torch.equal(gradient[:, 1::2], torch.zeros_like(gradient[:, 1::2]))


def test_measures_collapse():
    same = cosines(1, 1, 8).expand(4, 16, 8)
    metrics = SwappedAssignments()(same, cosines(4, 16, 8), None).metrics
    assert metrics["predicted_nearest_entropy"].item() == 0.0
    assert metrics["target_nearest_entropy"].item() > 0.9
    assert metrics["target_assigned_entropy"].item() > 0.95
    assert metrics["clusters_used"].item() == 8


def test_ranks_are_assigned_together():
    asked = []

    def reduce(values, operation):
        asked.append(operation)
        return values

    loss = SwappedAssignments(iterations=3)
    loss.reduce = reduce
    loss(cosines(2, 6, 4), cosines(2, 6, 4), None)
    assert asked == ["max", "sum", "sum", "sum"] * 2 + ["sum"]
    asked.clear()
    loss.eval()(cosines(2, 6, 4), cosines(2, 6, 4), None)
    assert asked == []


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"eps": -1.0}, {"iterations": -1}])
def test_senseless_options_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be .* got -?[01]"):
        SwappedAssignments(**options)


def test_half_precision_scores(scores):
    half = [side.detach().to(torch.bfloat16) for side in scores]
    found = SwappedAssignments()(*half, None).value
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, SwappedAssignments()(*(side.float() for side in half), None).value)
