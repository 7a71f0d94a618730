import pytest

from maskpre.data import FolderData
from maskpre.data.transforms import CentreCrop, RandomPadCrop

SIZE = 16


@pytest.fixture
def data(picture_folders):
    return FolderData(
        root=str(picture_folders / "train"),
        val_root=str(picture_folders / "val"),
        labels="folders",
        image_size=SIZE,
        channels=3,
        mean=[0.47, 0.47, 0.47],
        std=[0.25, 0.25, 0.25],
        batch_size=8,
        num_workers=0,
        transform=RandomPadCrop(size=SIZE, padding=0, flip=0.0),
        eval_transform=CentreCrop(size=SIZE, crop_ratio=1.0),
        seed=0,
    )
