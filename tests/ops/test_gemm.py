import pytest
import torch
from torch.nn.functional import linear

from maskpre.ops.gemm import affine, affine_add, outer_sum

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}


@pytest.fixture(params=[torch.float32, torch.float64])
def dtype(request):
    torch.manual_seed(0)
    return request.param


def near(found, expected):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=TOLERANCE[found.dtype])


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("transposed", [False, True])
def test_affine_is_linear(dtype, rows, transposed):
    x, bias = torch.randn(rows, 13, dtype=dtype), torch.randn(17, dtype=dtype)
    weight = torch.randn(13, 17, dtype=dtype).t() if transposed else torch.randn(17, 13, dtype=dtype)
    other = torch.randn(rows, 17, dtype=dtype)
    before = other.clone()
    expected = linear(x.double(), weight.double(), bias.double())
    near(affine(x, weight, bias), expected)
    near(affine(x, weight), expected - bias)
    near(affine_add(x, weight, bias, other), expected + other)
    near(affine_add(x, weight, None, other), expected - bias + other)
    assert torch.equal(other, before)


def test_affine_reads_part_of_a_wider_tensor(dtype):
    x = torch.randn(9, 20, dtype=dtype)[:, 3:16]
    weight = torch.randn(17, 13, dtype=dtype)
    near(affine(x, weight), x.double() @ weight.double().t())


@pytest.mark.parametrize("sides", [(5, 11), (11, 5), (8, 8)])
def test_outer_sum_adds_up_pieces(dtype, sides):
    left, right = (torch.randn(50, side, dtype=dtype) for side in sides)
    expected = left.double().t() @ right.double()
    near(outer_sum(left, right), expected)
    total = outer_sum(left[:20], right[:20])
    near(outer_sum(left[20:], right[20:], total), expected)
