import torch

from maskpre.ops.tiles.rows import as_map, as_rows, pick, spread, sum_rows, take_rows


def test_rows_and_maps_are_inverse_and_share_memory():
    x = torch.randn(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    rows = as_rows(x)
    assert torch.equal(rows[5], x[0, :, 1, 1])
    assert rows.data_ptr() == x.data_ptr()
    assert torch.equal(as_map(rows, 2, 4), x)
    assert as_map(rows, 2, 4).is_contiguous(memory_format=torch.channels_last)


def test_one_past_the_last_row_is_zeros():
    rows = torch.arange(1.0, 7.0).view(3, 2)
    assert take_rows(rows, torch.tensor([[3, 1], [0, 3]])).tolist() == [[0, 0], [3, 4], [1, 2], [0, 0]]
    assert sum_rows(rows, torch.tensor([[0, 1, 3], [2, 2, 3]])).tolist() == [[4, 6], [10, 12]]


def test_picked_rows_come_back_with_their_gradients():
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    ids, places = torch.tensor([2, 0]), torch.tensor([1, 2, 0, 2])
    assert torch.equal(pick(rows, ids, places=places), rows[ids])
    back = spread(pick(rows, ids, places=places), places, ids=ids)
    assert torch.equal(back, rows * torch.tensor([[1.0], [0], [1], [0]]))
    assert torch.autograd.gradcheck(lambda x: pick(x, ids, places=places), rows)
    assert torch.autograd.gradcheck(lambda x: spread(x, places, ids=ids), rows[:2].detach().requires_grad_())
