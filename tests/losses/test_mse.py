import pytest
import torch

from maskpre.losses.mse import MeanSquaredError


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)


def by_hand(pair, weight):
    """Sums over single values."""
    above = below = 0.0
    for b in range(2):
        for n in range(3):
            for k in range(4):
                share = weight[b, n, k % weight.shape[2]].item()
                above += share * (pair[0][b, n, k] - pair[1][b, n, k]).item() ** 2
                below += share
    return above / below


def test_without_weights_all_values_count_alike(pair):
    term = MeanSquaredError()(*pair, None)
    assert term.value.item() == pytest.approx(by_hand(pair, torch.ones(2, 3, 4)))
    torch.testing.assert_close(term.per_token, (pair[0] - pair[1]).square().mean(dim=2))


def test_hidden_tokens_of_the_whole_batch_share_one_ratio(pair):
    weight = torch.tensor([[1.0, 0, 1], [0, 0, 1]])[..., None]
    assert MeanSquaredError()(*pair, weight).value.item() == pytest.approx(by_hand(pair, weight))


@pytest.mark.parametrize("values", [1, 4])
def test_soft_weights(pair, values):
    weight = torch.rand(2, 3, values, dtype=torch.float64)
    assert MeanSquaredError()(*pair, weight).value.item() == pytest.approx(by_hand(pair, weight))


def test_the_map_ignores_weights(pair):
    plain, weighted = (MeanSquaredError()(*pair, w).per_token for w in (None, torch.rand(2, 3, 1)))
    assert torch.equal(plain, weighted)
