import numpy as np
import pytest
import torch

from maskpre.data.dataset import MAX_IN_A_ROW, PictureBatches
from maskpre.data.order import Request
from maskpre.data.pixel_cache import PixelCache
from maskpre.data.sources import FolderSource
from maskpre.data.transforms import CentreCrop, RandomResizedCrop
from maskpre.errors import UserError


def batches(root, on_bad="replace", **changes):
    settings = {
        "source": FolderSource(root=root),
        "transform": RandomResizedCrop(size=16),
        "channels": 3,
        "seed": 1,
        "on_bad": on_bad,
    }
    return PictureBatches(**(settings | changes))


def request(*indices, epoch=0):
    return Request(np.array(indices), epoch)


@pytest.fixture
def damaged(tmp_path, jpeg):
    """Ten pictures; numbers 2 (text), 5 (empty) and 7 (cut off) are bad."""
    contents = [jpeg(number) for number in range(10)]
    contents[2], contents[5], contents[7] = b"text", b"", contents[7][:300]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    return tmp_path


def test_a_batch_holds_what_the_contract_says(pictures):
    loaded = batches(pictures)[request(3, 59, 20, epoch=4)]
    batch = loaded.batch
    assert (loaded.bad, loaded.failure) == ([], "")
    assert sorted(batch) == ["epoch", "image", "index", "label"]
    assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (3, 3, 16, 16))
    assert [batch[name].dtype for name in ("label", "index", "epoch")] == [torch.int64] * 3
    assert batch["index"].tolist() == [3, 59, 20]
    assert batch["epoch"].tolist() == [4, 4, 4]
    assert batch["label"].tolist() == [0, 2, 1]


def test_a_sample_does_not_depend_on_its_neighbours(pictures):
    data = batches(pictures)
    alone = data[request(20, epoch=4)].batch["image"][0]
    assert torch.equal(data[request(3, 59, 20, epoch=4)].batch["image"][2], alone)
    assert not torch.equal(data[request(20, epoch=5)].batch["image"][0], alone)


def test_bad_samples_are_replaced_the_same_way_every_time(damaged):
    whole = batches(damaged)[request(*range(10))]
    index = whole.batch["index"].tolist()
    assert {2, 5, 7}.isdisjoint(index)
    assert [index[number] for number in (0, 1, 3, 4, 6, 8, 9)] == [0, 1, 3, 4, 6, 8, 9]
    assert {bad.number for bad in whole.bad} == {2, 5, 7}
    for number in (2, 5, 7):
        alone = batches(damaged)[request(number)].batch
        assert alone["index"].item() == index[number]
        assert torch.equal(alone["image"][0], whole.batch["image"][number])
    other_epoch = batches(damaged)[request(*range(10), epoch=1)].batch["index"].tolist()
    assert [other_epoch[number] for number in (2, 5, 7)] != [index[number] for number in (2, 5, 7)]


def test_reasons_name_file_and_fault(damaged):
    bad = {bad.number: bad for bad in batches(damaged, "drop")[request(*range(10))].bad}
    assert bad[2].key == str(damaged / "2.jpg")
    assert bad[2].reason == "is no picture of a known format"
    assert bad[5].reason == "is empty (0 bytes)"
    assert bad[7].reason.startswith("can't be decoded: ")


def test_dropped_samples_shorten_the_batch(damaged):
    loaded = batches(damaged, "drop")[request(*range(10))]
    assert loaded.batch["index"].tolist() == [0, 1, 3, 4, 6, 8, 9]
    assert batches(damaged, "drop")[request(2)].batch is None
    assert batches(damaged, "drop")[request(2)].failure == ""


def test_raising_fails_the_batch_and_names_the_file(damaged):
    loaded = batches(damaged, "raise")[request(0, 2)]
    assert loaded.batch is None
    assert loaded.failure == f"'{damaged}/2.jpg' is no picture of a known format (data.on_error=raise)"


@pytest.mark.parametrize("on_bad", ["replace", "drop"])
def test_nothing_but_bad_samples_fails_fast(tmp_path, on_bad):
    for number in range(40):
        (tmp_path / f"{number:02d}.jpg").write_bytes(b"text")
    loaded = batches(tmp_path, on_bad)[request(*range(MAX_IN_A_ROW))]
    assert len(loaded.bad) == MAX_IN_A_ROW
    where = f"folder {tmp_path}: 40 pictures, unlabelled"
    assert loaded.failure.startswith(
        f"16 samples in a row can't be read ({where}), e.g. '{tmp_path}/00.jpg' is no"
    )


def test_the_memory_changes_no_batch_and_spares_the_disk(tmp_path, jpeg):
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number, 40, 40 if number else 44))
    cached = batches(tmp_path, cache=PixelCache(count=6, shape=(3, 40, 40)))
    plain = [batches(tmp_path)[request(*range(6), epoch=epoch)].batch for epoch in range(2)]
    first = cached[request(*range(6))].batch
    for number in range(1, 6):
        (tmp_path / f"{number}.jpg").unlink()
    second = cached[request(*range(6), epoch=1)].batch
    assert all(torch.equal(first[name], plain[0][name]) for name in first)
    assert all(torch.equal(second[name], plain[1][name]) for name in second)


def test_memory_that_cannot_be_had_is_refused():
    with pytest.raises(UserError, match=r"data.cache=ram needs 1401\d+.\d GiB for 10000000000 samples"):
        PixelCache(count=10**10, shape=(3, 224, 224))


def test_five_channels_travel_through(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((20, 30, 5), 10 * number, dtype=np.uint8))
    batch = batches(tmp_path, channels=5, transform=CentreCrop(size=8))[request(2, 1)].batch
    assert batch["image"].shape == (2, 5, 8, 8)
    assert batch["image"][:, 4].unique().tolist() == [10, 20]
