"""The published sum over ordered pairs, written out."""

import math

import pytest
import torch

from maskpre.losses.pairwise import PairwiseRanking


def by_hand(score: list[float], goal: list[float]) -> tuple[float, int]:
    total, count = 0.0, 0
    for a, left in enumerate(score):
        for b, right in enumerate(score):
            probability = 1 / (1 + math.exp(-(right - left)))
            if goal[b] > goal[a]:
                total, count = total - math.log(probability + 1e-6), count + 1
            elif goal[b] < goal[a]:
                total, count = total - math.log(1 - probability + 1e-6), count + 1
    return total, count


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    score = 3 * torch.randn(2, 5, dtype=torch.float64, generator=generator)
    goal = torch.tensor([[0.1, 0.5, 0.5, 0.2, 0.9], [1.0, 0.0, 0.3, 0.7, 0.7]], dtype=torch.float64)
    return score, goal


def test_ordered_pairs_of_unequal_targets_count(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    sums = [by_hand(score.tolist(), goal.tolist()) for score, goal in zip(*pair, strict=True)]
    term = PairwiseRanking()(pair[0][..., None], pair[1][..., None], None)
    assert term.value.item() == pytest.approx(sum(s for s, _ in sums) / sum(n for _, n in sums))


def test_weights_leave_tokens_out(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    weight = torch.tensor([1.0, 0, 1, 1, 0]).expand(2, -1)[..., None]
    score, goal = (values[:, [0, 2, 3], None] for values in pair)
    chosen = PairwiseRanking()(score, goal, None)
    whole = PairwiseRanking()(pair[0][..., None], pair[1][..., None], weight)
    torch.testing.assert_close(whole.value, chosen.value)
    torch.testing.assert_close(whole.per_token[:, [0, 2, 3]], chosen.per_token)


def test_equal_targets_lose_nothing() -> None:
    score = torch.randn(2, 4, 1, requires_grad=True)
    term = PairwiseRanking()(score, torch.ones(2, 4, 1), None)
    term.value.backward()
    assert term.value.item() == 0
    assert not score.grad.any()


def test_half_precision_predictions_are_ranked_in_float32() -> None:
    score = torch.tensor([[[-9.0], [9.0]]], dtype=torch.float16)
    term = PairwiseRanking()(score, torch.tensor([[[1.0], [0.0]]]), None)
    assert term.value.dtype is torch.float32
    assert term.value.item() == pytest.approx(-math.log(1 / (1 + math.exp(18)) + 1e-6), rel=1e-4)
