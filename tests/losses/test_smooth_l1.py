import pytest
import torch
from torch.nn.functional import l1_loss, smooth_l1_loss

from maskpre.losses.l1 import MeanAbsoluteError
from maskpre.losses.smooth_l1 import SmoothL1

PREDICTION = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
TARGET = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LOSSES = [
    (SmoothL1(), lambda p, t: 2 * smooth_l1_loss(p, t)),
    (SmoothL1(beta=0.5, factor=1.0), lambda p, t: smooth_l1_loss(p, t, beta=0.5)),
    (MeanAbsoluteError(), l1_loss),
]


@pytest.mark.parametrize(("loss", "expected"), LOSSES)
def test_all_tokens_count_alike_without_weights(loss, expected) -> None:
    term = loss(PREDICTION, TARGET, None)
    torch.testing.assert_close(term.value, expected(PREDICTION, TARGET))
    assert term.per_token.shape == (2, 3)


@pytest.mark.parametrize(("loss", "expected"), LOSSES)
def test_a_region_is_one_ratio_for_the_batch(loss, expected) -> None:
    weight = torch.tensor([[1.0, 0, 1], [0, 0, 1]], dtype=torch.float64)[..., None]
    inside = weight[..., 0].bool()
    torch.testing.assert_close(
        loss(PREDICTION, TARGET, weight).value, expected(PREDICTION[inside], TARGET[inside])
    )


@pytest.mark.parametrize(("loss", "expected"), LOSSES)
def test_values_can_count_differently(loss, expected) -> None:
    weight = torch.tensor([0.3, 0.3, 0.7, 0.7], dtype=torch.float64).expand(2, 3, 4)
    first, last = (expected(PREDICTION[..., part], TARGET[..., part]) for part in (slice(2), slice(2, 4)))
    torch.testing.assert_close(loss(PREDICTION, TARGET, weight).value, 0.3 * first + 0.7 * last)


def test_factors_must_be_positive() -> None:
    with pytest.raises(ValueError, match="greater than 0, got 0"):
        SmoothL1(beta=0)
