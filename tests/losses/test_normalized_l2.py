import pytest
import torch
from torch.nn.functional import cosine_similarity

from maskpre.losses.normalized_l2 import NormalizedL2


def test_it_is_two_minus_two_cosines_in_the_region() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(2, 3, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    expected = 2 - 2 * cosine_similarity(prediction, target, dim=-1)
    plain = NormalizedL2()(prediction, target, None)
    torch.testing.assert_close(plain.per_token, expected)
    assert plain.value.item() == pytest.approx(expected.mean().item())
    weight = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    weighted = NormalizedL2()(prediction, target, weight[..., None])
    assert weighted.value.item() == pytest.approx(((expected * weight).sum() / 3).item())
