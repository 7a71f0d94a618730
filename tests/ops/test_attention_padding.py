import torch

from maskpre.ops.attention_padding import Padding

CU = torch.tensor([0, 2, 2, 5], dtype=torch.int32)


def test_samples_of_differing_length_become_rows_and_tokens_again():
    # The last two tokens belong to no sample.
    tokens = torch.arange(1.0, 8.0)[:, None].expand(7, 2).clone()
    padding = Padding.of(CU, longest=4, num_tokens=7)
    padded = padding.pad(tokens)
    assert padded[..., 0].tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 4, 5, 0]]
    assert padding.pack(padded)[:, 1].tolist() == [1, 2, 3, 4, 5, 0, 0]


def test_no_tokens_and_no_samples():
    empty = Padding.of(torch.zeros(3, dtype=torch.int32), longest=2, num_tokens=0)
    padded = empty.pad(torch.ones(0, 3, requires_grad=True))
    assert padded.tolist() == [[[0.0] * 3] * 2] * 2
    packed = empty.pack(padded)
    packed.sum().backward()
    assert packed.shape == (0, 3)


def test_gradients_of_first_and_second_order():
    padding = Padding.of(CU, longest=3, num_tokens=6)
    tokens = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: padding.pad(x).square(), (tokens,))
    assert torch.autograd.gradcheck(padding.pad, (tokens,))
    assert torch.autograd.gradcheck(padding.pack, (rows,))


def test_what_is_not_a_number_stays_in_its_sample():
    tokens = torch.ones(5, 1)
    tokens[4] = torch.nan
    padded = Padding.of(CU, longest=4, num_tokens=5).pad(tokens)
    assert padded[:2].isfinite().all()
