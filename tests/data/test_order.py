import numpy as np
import pytest

from maskpre.data.order import (
    BLOCK_SIZE,
    BLOCKS_PER_WINDOW,
    GlobalOrder,
    Request,
    SequentialOrder,
    epoch_order,
)
from maskpre.errors import UserError


def order(**changes: object) -> GlobalOrder:
    settings = {"num_samples": 103, "global_batch": 8, "seed": 5, "num_steps": 40}
    return GlobalOrder(**(settings | changes))


def same(left: Request, right: Request) -> bool:
    return left.epoch == right.epoch and (left.indices == right.indices).all()


def test_order_never_changes():
    expected = [2, 3, 9, 1, 8, 10, 6, 0, 7, 11, 4, 5]
    assert epoch_order(num_samples=12, seed=0, epoch=1, shuffle="full").tolist() == expected


@pytest.mark.parametrize("start", [0, 1, 11, 12, 13, 39, 40])
def test_a_later_start_gives_the_rest_of_the_same_stream(start):
    whole, rest = list(order()), list(order(start_step=start))
    assert len(rest) == len(order(start_step=start)) == 40 - start
    assert all(same(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_steps_can_be_asked_for_in_any_order():
    whole = list(order())
    asked = order()
    assert all(same(asked.global_request(step), whole[step]) for step in (30, 2, 17, 16, 0))


def test_an_epoch_has_no_sample_twice_and_drops_the_incomplete_batch():
    requests = list(order())
    assert [request.epoch for request in requests] == [step // 12 for step in range(40)]
    first = np.concatenate([request.indices for request in requests[:12]])
    second = np.concatenate([request.indices for request in requests[12:24]])
    assert len(set(first.tolist())) == 96
    assert set(first.tolist()) != set(second.tolist())


@pytest.mark.parametrize(("world", "micro_batches"), [(1, 2), (2, 1), (4, 1), (2, 4), (1, 8)])
def test_any_number_of_ranks_and_micro_batches_sees_the_same_global_batches(world, micro_batches):
    ranks = [
        list(order(world=world, rank=rank, micro_batches=micro_batches, start_step=7))
        for rank in range(world)
    ]
    for step in range(7, 40):
        first = (step - 7) * micro_batches
        parts = [ranks[rank][first + part] for rank in range(world) for part in range(micro_batches)]
        joined = Request(np.concatenate([part.indices for part in parts]), parts[0].epoch)
        assert same(joined, order().global_request(step))


def test_block_shuffle_covers_everything_and_stays_in_windows():
    num_samples = 40 * BLOCK_SIZE + 17
    shuffled, other = (
        epoch_order(num_samples=num_samples, seed=1, epoch=epoch, shuffle="block") for epoch in range(2)
    )
    assert np.array_equal(np.sort(shuffled), np.arange(num_samples))
    window = shuffled[: BLOCKS_PER_WINDOW * BLOCK_SIZE - BLOCK_SIZE]
    assert len(set((window // BLOCK_SIZE).tolist())) == BLOCKS_PER_WINDOW
    assert (np.diff(shuffled) == 1).mean() < 0.01
    assert not np.array_equal(shuffled, other)


def test_no_shuffle_is_the_order_of_the_source():
    assert [r.indices.tolist() for r in order(shuffle="none", num_steps=2)] == [[*range(8)], [*range(8, 16)]]


def test_too_few_samples_names_both_numbers():
    with pytest.raises(UserError, match=r"has 103 samples, fewer than one global batch of 128: .* 103$"):
        order(global_batch=128)


def test_batch_that_cannot_be_shared_out_names_all_numbers():
    with pytest.raises(UserError, match=r"batch_size \(8\) .* ranks \(3\) .* micro-batches \(2\), here 6"):
        order(world=3, micro_batches=2)


def test_sequential_order_deals_batches_out_and_keeps_the_last():
    ranks = [list(SequentialOrder(num_samples=21, batch_size=4, rank=rank, world=2)) for rank in range(2)]
    assert [r.indices.tolist() for r in ranks[0]] == [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19]]
    assert [r.indices.tolist() for r in ranks[1]] == [[4, 5, 6, 7], [12, 13, 14, 15], [20]]


def test_sequential_order_spreads_a_limit_evenly():
    requests = list(SequentialOrder(num_samples=100, batch_size=3, limit=5))
    assert [r.indices.tolist() for r in requests] == [[0, 20, 40], [60, 80]]
