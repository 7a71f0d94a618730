import pytest
import torch

from maskpre.losses.standardized_mse import StandardizedMSE


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 6, 1, dtype=torch.float64, generator=generator) for _ in range(2))


def test_every_sample_has_statistics_of_its_own(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    errors = []
    for prediction, target in zip(*pair, strict=True):
        standard = (target - target.mean()) / (target.var() + 1e-6).sqrt()
        errors.append((prediction - standard).square().mean())
    assert StandardizedMSE()(*pair, None).value.item() == pytest.approx(torch.stack(errors).mean().item())


def test_statistics_are_those_of_the_region(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    weight = torch.tensor([1.0, 0, 1, 1, 0, 1]).expand(2, -1)[..., None]
    inside = [0, 2, 3, 5]
    alone = StandardizedMSE()(pair[0][:, inside], pair[1][:, inside], None)
    torch.testing.assert_close(StandardizedMSE()(*pair, weight).value, alone.value)
