import numpy as np
import pytest
from PIL import Image

from maskpre.data import FolderData
from maskpre.data.transforms import CentreCrop, RandomPadCrop

SIZE = 16


def write_pictures(root, num_per_class, seed):
    """Two classes: red or blue noise."""
    generator = np.random.default_rng(seed)
    for label in range(2):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(num_per_class):
            pixels = generator.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
            pixels[..., 2 * label] += 120
            Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="session")
def picture_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "train", 24, seed=0)
    write_pictures(root / "val", 8, seed=1)
    return root


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
