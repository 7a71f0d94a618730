"""Images per second of one core: this package's loader beside Pillow and float transforms.

Both read the same 500 x 375 JPEG files, take a RandomResizedCrop(224, bicubic) and a flip, and make batches
of 64. The files are made here: smooth noise of all scales with hard-edged shapes on it, at quality 90, which
gives about the file size of photographs. The two paths alternate in rounds, on CPU time of one thread, so
that other work on the machine hits both.

    python scripts/benchmark_data.py [--images 256] [--rounds 6]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision import transforms

from maskpre.data.dataset import PictureBatches
from maskpre.data.order import SequentialOrder
from maskpre.data.sources import FolderSource
from maskpre.data.transforms import RandomResizedCrop

WIDTH, HEIGHT, BATCH = 500, 375, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def draw_photo(generator: np.random.Generator) -> Image.Image:
    """A picture with a photograph's share of fine detail."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128.0)
    for cell in (128, 64, 32, 16, 8, 4, 2):
        coarse = generator.normal(0, 1, (HEIGHT // cell + 2, WIDTH // cell + 2, 3))
        tint = coarse.mean(axis=2, keepdims=True) + 0.3 * coarse
        layers = [Image.fromarray(tint[:, :, c].astype(np.float32)).resize((WIDTH, HEIGHT)) for c in range(3)]
        pixels += 5.5 * cell**0.45 * np.stack([np.asarray(layer) for layer in layers], axis=2)
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, radius = (
            int(generator.integers(low, high)) for low, high in ((0, WIDTH), (0, HEIGHT), (5, 60))
        )
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=3)
    return picture


def write_photos(folder: Path, count: int) -> float:
    """Write `count` pictures; returns their mean size in kilobytes."""
    generator = np.random.default_rng(0)
    for number in range(count):
        draw_photo(generator).save(folder / f"{number:05d}.jpg", quality=90)
    return sum(path.stat().st_size for path in folder.iterdir()) / count / 1000


def our_batches(folder: Path) -> Iterator[torch.Tensor]:
    """uint8 batches, as the loader's workers make them."""
    source = FolderSource(root=folder)
    dataset = PictureBatches(
        source=source, transform=RandomResizedCrop(size=224), channels=3, seed=0, on_bad="raise"
    )
    for request in SequentialOrder(num_samples=len(source), batch_size=BATCH):
        batch = dataset[request].batch
        assert batch is not None
        yield batch["image"]


def pillow_batches(folder: Path) -> Iterator[torch.Tensor]:
    """Normalised float batches, as ImageNet training code usually makes them."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                224, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    paths = sorted(folder.iterdir())
    for start in range(0, len(paths), BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            with path.open("rb") as file:
                images.append(transform(Image.open(file).convert("RGB")))
        yield torch.stack(images)


def images_per_second(batches: Callable[[Path], Iterator[torch.Tensor]], folder: Path) -> float:
    """Pictures per second of CPU time."""
    start = time.process_time()
    count = sum(len(batch) for batch in batches(folder))
    return count / (time.process_time() - start)


def main() -> None:
    """Measure both paths in turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_photos(folder, arguments.images)
        print(f"{arguments.images} JPEGs of {WIDTH} x {HEIGHT}, {size:.0f} kB on average")
        ours: list[float] = []
        pillow: list[float] = []
        for number in range(arguments.rounds):
            ours.append(images_per_second(our_batches, folder))
            pillow.append(images_per_second(pillow_batches, folder))
            print(f"round {number + 1}: maskpre {ours[-1]:.0f}, Pillow + float {pillow[-1]:.0f} images/s")
    ratios = [left / right for left, right in zip(ours, pillow, strict=True)]
    print(f"median: maskpre {median(ours):.0f}, Pillow + float {median(pillow):.0f} images/s per core")
    print(f"ratio {median(ratios):.2f} (lowest {min(ratios):.2f}, highest {max(ratios):.2f})")


if __name__ == "__main__":
    main()
