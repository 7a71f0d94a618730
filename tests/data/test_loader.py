import logging
import multiprocessing
import os
import signal

import pytest
import torch

from maskpre.data.dataset import BadSample, PictureBatches
from maskpre.data.loader import BatchLoader, SkipCount
from maskpre.data.order import GlobalOrder, SequentialOrder
from maskpre.data.sources import FolderSource
from maskpre.data.transforms import RandomResizedCrop
from maskpre.errors import UserError


def loader(root, num_workers, on_bad="replace", num_steps=12):
    source = FolderSource(root=root)
    dataset = PictureBatches(
        source=source, transform=RandomResizedCrop(size=16), channels=3, seed=1, on_bad=on_bad
    )
    order = GlobalOrder(num_samples=len(source), global_batch=4, seed=1, num_steps=num_steps)
    return BatchLoader(
        dataset=dataset, requests=order, num_workers=num_workers, skipped=SkipCount(), total=num_steps
    )


def equal(left, right):
    return len(left) == len(right) and all(
        torch.equal(a[name], b[name]) for a, b in zip(left, right, strict=True) for name in a
    )


def test_workers_change_nothing(pictures):
    alone = list(loader(pictures, 0))
    assert len(alone) == len(loader(pictures, 0)) == 12
    assert equal(alone, list(loader(pictures, 2)))


def test_the_global_generator_is_left_alone(pictures):
    before = torch.get_rng_state()
    list(loader(pictures, 0))
    list(loader(pictures, 1, num_steps=2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_samples_are_counted_and_named_once(tmp_path, jpeg, caplog, num_workers):
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number) if number else b"text")
    bad = loader(tmp_path, num_workers)
    with caplog.at_level(logging.WARNING):
        batches = list(bad)
    assert [len(batch["index"]) for batch in batches] == [4] * 12
    assert bad.skipped.total >= 6
    named = f"skipped '{tmp_path}/0.jpg': it is no picture of a known format (1 skipped so far)"
    assert [record.message for record in caplog.records] == [named]


def test_only_the_first_hundred_bad_samples_are_named(caplog):
    skipped = SkipCount()
    with caplog.at_level(logging.WARNING):
        skipped.add([BadSample(number, f"file{number}", "is bad") for number in range(150)])
    assert skipped.total == 150
    assert len(caplog.records) == 101
    assert caplog.records[-1].message == "100 bad samples were named; further ones are only counted"


def test_the_count_is_said_at_powers_of_ten_and_at_the_end(caplog):
    skipped = SkipCount()
    skipped.close()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        for _ in range(25):
            skipped.add([BadSample(number % 7, f"file{number % 7}", "is bad") for number in range(499)])
        skipped.close()
    assert [record.message for record in caplog.records[7:]] == [
        "1,000 bad samples skipped so far",
        "10,000 bad samples skipped so far",
        "12,475 bad samples skipped in all",
    ]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_failures_arrive_as_one_clean_message(tmp_path, num_workers):
    for number in range(30):
        (tmp_path / f"{number:02d}.jpg").write_bytes(b"text")
    with pytest.raises(UserError) as caught:
        list(loader(tmp_path, num_workers))
    assert str(caught.value).startswith("16 samples in a row can't be read (folder")
    assert "Traceback" not in str(caught.value)


def test_evaluation_leaves_out_wholly_bad_batches(tmp_path, jpeg):
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number) if number < 2 else b"text")
    evaluation = loader(tmp_path, 0, "drop")
    evaluation.requests = SequentialOrder(num_samples=4, batch_size=2)
    assert [batch["index"].tolist() for batch in evaluation] == [[0, 1]]
    assert evaluation.skipped.total == 2


def test_signals_to_the_job_leave_workers_at_work(pictures):
    iterator = iter(loader(pictures, 1, num_steps=30))
    batches = [next(iterator)]
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(worker.pid, number)
    batches.extend(iterator)
    assert equal(batches, list(loader(pictures, 0, num_steps=30)))
    worker.join(timeout=30)
    assert worker.exitcode == 0
