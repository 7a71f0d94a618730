"""Crops that come back after some epochs."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from maskpre.config import compose
from maskpre.data.crops import RepeatedCrops
from maskpre.data.picture_data import PictureData
from maskpre.data.randomness import Draws
from maskpre.data.transforms import RandomResizedCrop
from maskpre.errors import ConfigError


def test_the_epoch_counts_modulo_the_number_of_crops() -> None:
    plain = RandomResizedCrop(size=8, scale=(0.2, 1.0), ratio=(1.0, 1.0), interpolation="bicubic", flip=0.5)
    repeated = RepeatedCrops(plain, count=3)
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    for epoch in range(7):
        expected = plain(image, Draws(0, epoch % 3, 5))
        assert torch.equal(repeated(image, Draws(0, epoch, 5)), expected)


def pictures(data: PictureData, epoch: int) -> dict[int, torch.Tensor]:
    """All crops of an epoch by sample, as a training run sees them."""
    steps = data.steps_per_epoch
    loader = data.train_loader(
        num_steps=(epoch + 1) * steps, start_step=epoch * steps, transform=data.pretraining_transform
    )
    return {
        int(index): image
        for batch in loader
        for index, image in zip(batch["index"], batch["image"], strict=True)
    }


def test_epochs_repeat_and_a_crop_can_be_asked_for(picture_folders: Path) -> None:
    folder = ["data=folder", f"data.root={picture_folders / 'train'}", "data.labels=folders"]
    sizes = ["data.image_size=16", "encoder.patch_size=8", "data.batch_size=8", "data.num_workers=0"]
    cfg = compose(["experiment=mae", *folder, *sizes, "data.crops_per_sample=2"])
    data: PictureData = instantiate(cfg.data)
    first, second, third = (pictures(data, epoch) for epoch in range(3))
    assert all(torch.equal(first[index], third[index]) for index in first)
    assert not all(torch.equal(first[index], second[index]) for index in first)
    asked = next(iter(data.crop_loader(crop=1, samples=[3, 11], batch_size=2)))
    assert asked["index"].tolist() == [3, 11]
    assert asked["epoch"].tolist() == [1, 1]
    assert all(torch.equal(image, second[i]) for i, image in zip((3, 11), asked["image"], strict=True))


def test_no_crops_are_refused() -> None:
    with pytest.raises(ConfigError, match="crops_per_sample must be at least 1, got 0"):
        compose(["experiment=mae", "data.crops_per_sample=0"])
    remote = ["data=remote", "data.shards=pipe:cat x.tar", "max_steps=9", "data.image_size=64"]
    with pytest.raises(ConfigError, match="needs samples with numbers"):
        compose(["experiment=mae", *remote, "data.crops_per_sample=2"])
