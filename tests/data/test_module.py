import pytest
import torch
from lightning.pytorch import Trainer

from maskpre.data import FolderData
from maskpre.data.transforms import CentreCrop, RandomResizedCrop
from maskpre.errors import UserError


def folder_data(root, **changes):
    settings = {
        "root": str(root),
        "image_size": 16,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "batch_size": 8,
        "num_workers": 0,
        "transform": RandomResizedCrop(size=16),
        "eval_transform": CentreCrop(size=16),
        "seed": 1,
    }
    return FolderData(**(settings | changes))


def collect(loader):
    return list(loader)


@pytest.mark.parametrize(("world", "micro_batches"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
def test_ranks_together_see_the_same_batches_and_crops(pictures, world, micro_batches):
    alone = collect(folder_data(pictures).train_loader(num_steps=9, start_step=4))
    settings = {"num_steps": 9, "start_step": 4, "world": world, "micro_batches": micro_batches}
    ranks = [collect(folder_data(pictures).train_loader(rank=rank, **settings)) for rank in range(world)]
    for step, expected in enumerate(alone):
        parts = [
            ranks[rank][step * micro_batches + part] for rank in range(world) for part in range(micro_batches)
        ]
        for name in expected:
            assert torch.equal(torch.cat([part[name] for part in parts]), expected[name])


def test_length_counts_the_whole_run_after_a_resume(pictures):
    loader = folder_data(pictures).train_loader(num_steps=9, start_step=4, micro_batches=2)
    assert len(loader) == 18
    assert len(collect(loader)) == 10


def test_evaluation_sees_everything_once_in_order(pictures):
    data = folder_data(pictures, val_root=str(pictures))
    batches = collect(data.eval_loader("val", batch_size=7))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(60))
    assert [len(batch["index"]) for batch in batches] == [7] * 8 + [4]


def test_the_memory_is_shared_with_workers_and_between_loaders(pictures, tmp_path, jpeg):
    for number in range(16):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    data = folder_data(tmp_path, cache="ram", num_workers=1)
    first = collect(data.eval_loader("train"))
    for number in range(16):
        (tmp_path / f"{number}.jpg").unlink()
    data.num_workers = 0
    second = collect(data.eval_loader("train"))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert data.skipped.total == 0


def test_grey_pictures(pictures):
    data = folder_data(pictures, channels=1, mean=[0.5], std=[0.2])
    batch = next(iter(data.train_loader(num_steps=1)))
    assert batch["image"].shape == (8, 1, 16, 16)


def test_mean_and_std_must_match_the_channels(pictures):
    with pytest.raises(UserError, match=r"data.mean has 3 values, data.channels is 5"):
        folder_data(pictures, channels=5)


def test_a_negative_seed_is_refused(pictures):
    with pytest.raises(UserError, match=r"data.seed must be in 0..2\*\*64-1, got -1"):
        folder_data(pictures, seed=-1)


def test_a_missing_split_is_named(pictures):
    data = folder_data(pictures)
    assert not data.has_split("val")
    assert not data.has_labels
    with pytest.raises(UserError, match="the data set has no 'val' split"):
        data.eval_loader("val")


def test_labels_and_epochs_are_known(pictures):
    data = folder_data(pictures, val_root=str(pictures))
    assert (data.num_classes, data.num_train, data.steps_per_epoch, data.has_labels) == (3, 60, 7, True)


@pytest.mark.filterwarnings("ignore")
def test_the_run_needs_a_number_of_steps(pictures):
    data = folder_data(pictures)
    data.trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match=r"trainer.max_steps must be set"):
        data.train_dataloader()


def test_workers_share_the_cores(pictures, monkeypatch):
    monkeypatch.setattr("maskpre.data.module.available_cores", lambda: 24)
    assert folder_data(pictures, num_workers=None).train_loader(num_steps=1).num_workers == 8
    monkeypatch.setattr("maskpre.data.module.available_cores", lambda: 3)
    assert folder_data(pictures, num_workers=None).train_loader(num_steps=1).num_workers == 3
