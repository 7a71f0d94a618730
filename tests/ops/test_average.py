import pytest
import torch
from torch import nn

from maskpre.ops.average import average_module, average_tensors


def test_a_share_of_the_average_is_kept() -> None:
    average, current = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.0])
    average_tensors([average], [current], 0.75)
    torch.testing.assert_close(average, torch.tensor([1.25, 3.0]))


def test_equal_values_stay_exactly_equal() -> None:
    value = torch.rand(100)
    average = value.clone()
    for _ in range(20):
        average_tensors([average], [value], 0.9)
    assert torch.equal(average, value)


def test_buffers_move_and_counters_are_copied() -> None:
    average, current = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        current.weight.fill_(3.0)
        current.running_mean.fill_(1.0)
        current.num_batches_tracked.fill_(7)
    average_module(average, current, 0.5)
    assert average.weight.tolist() == [2.0, 2.0]
    assert average.running_mean.tolist() == [0.5, 0.5]
    assert average.num_batches_tracked.item() == 7
    assert average.weight.grad is None
    assert average.weight.requires_grad


def test_modules_of_different_kinds_are_no_pair() -> None:
    with pytest.raises(ValueError, match="zip"):
        average_module(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)
