import math

import pytest
import torch

from maskpre.golden.compare import differences, gradient_errors, relative_error, tolerance


def test_errors_are_relative_to_the_largest_value() -> None:
    assert relative_error(torch.tensor([1.0, 8.1]), torch.tensor([1.0, 8.0])) == pytest.approx(
        0.1 / 8, rel=1e-5
    )


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.tensor([math.nan]), torch.tensor([1.0])),
        (torch.tensor([1.0]), torch.tensor([0.0])),
        (torch.tensor([1]), torch.tensor([2])),
    ],
)
def test_what_cant_be_compared_is_infinitely_wrong(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert relative_error(got, expected) == math.inf


def pairs(scale: float, got: float, expected: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A gradient among others, the largest of which is `scale`."""
    largest = torch.tensor([scale]).double()
    return {
        "largest": (largest, largest),
        "it": (torch.tensor([got]).double(), torch.tensor([expected]).double()),
    }


def test_gradients_that_cancelled_on_both_sides_agree() -> None:
    assert gradient_errors(pairs(0.1, 3e-18, 1e-20))["it"] == 0


@pytest.mark.parametrize(
    ("scale", "got", "expected"),
    [
        (0.1, 1e-12, 0.0),
        (0.1, 0.0, 1e-12),
        (0.1, 1.1e-12, 1e-12),
        # A case of small gradients only.
        (1e-14, 3e-18, 1e-20),
        (1e-14, 2e-14, 1e-14),
        (0.1, math.nan, 1e-20),
    ],
)
def test_no_wrong_gradient_passes_for_zero(scale: float, got: float, expected: float) -> None:
    assert gradient_errors(pairs(scale, got, expected))["it"] > 0.05


def test_zero_gradients_of_another_shape_are_wrong() -> None:
    zeros = {"zero": (torch.zeros(2), torch.zeros(3)), "largest": (torch.ones(1), torch.ones(1))}
    assert gradient_errors(zeros) == {"zero": math.inf, "largest": 0.0}


def test_empty_and_zero_tensors_agree() -> None:
    assert relative_error(torch.zeros(0), torch.zeros(0)) == 0
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0


def test_tolerances() -> None:
    real = torch.zeros(1)
    assert tolerance("mask", real) == 0
    assert tolerance("ids_keep", real.long()) == 0
    assert tolerance("labels", real.long()) == 0
    assert tolerance("loaded/table", real) == 1e-5
    assert tolerance("pred", real) == 5e-5


def test_differences_of_nested_values() -> None:
    expected = {"a": [1.0, {"b": 2}], "c": "x"}
    assert differences({"a": [1.0 + 1e-12, {"b": 2}], "c": "x"}, expected, "e") == []
    assert differences({"a": [1.1, {"b": 3}], "c": "y"}, expected, "e") == [
        "e.a[0] is 1.1, expected 1.0",
        "e.a[1].b is 3, expected 2",
        "e.c is 'y', expected 'x'",
    ]
    assert differences({"a": [1.0]}, expected, "e") == ["e differs in the keys ['c']"]
    assert differences([1, 2], [1], "e") == ["e is [1, 2], expected [1]"]
