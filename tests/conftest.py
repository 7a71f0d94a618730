"""Settings every test runs under, and a run small enough for tests."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# Before torch is imported: tests run side by side, and more threads than cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before Triton is imported: it decides then whether kernels are compiled or interpreted, which needs no GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this process renders its few demo pictures."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def tiny(demo_cache: Path) -> list[str]:
    """Overrides that make any experiment a matter of seconds: 96 pictures of 32 x 32, 12 steps of 16."""
    return [
        f"data.cache_dir={demo_cache}",
        "data.image_size=32",
        "data.num_train=96",
        "data.num_val=40",
        "data.batch_size=16",
        "data.num_workers=0",
        "encoder.embed_dim=32",
        "encoder.depth=1",
        "encoder.num_heads=2",
        "max_steps=12",
        "optim.schedule.warmup_epochs=0.5",
        "trainer.log_every_n_steps=1",
        "callbacks.probe=null",
    ]


@pytest.fixture(scope="session")
def tiny_mae(tiny: list[str]) -> list[str]:
    """A tiny MAE."""
    decoder = ["predictor.embed_dim=16", "predictor.depth=1", "predictor.num_heads=2"]
    return ["experiment=mae", *tiny, *decoder]


def write_pictures(root: Path, num_per_class: int, seed: int) -> None:
    """Two classes of 16 x 16 pictures: red or blue noise."""
    generator = np.random.default_rng(seed)
    for label in range(2):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(num_per_class):
            pixels = generator.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[..., 2 * label] += 120
            Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="session")
def picture_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train and val of 48 and 16 labelled pictures that anything learns to tell apart."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "train", 24, seed=0)
    write_pictures(root / "val", 8, seed=1)
    return root
