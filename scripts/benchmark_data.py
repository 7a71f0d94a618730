"""What one core reads: pictures beside Pillow and float transforms, or clips of video by each decoder.

Pictures: both read the same 500 x 375 JPEG files, take a RandomResizedCrop(224, bicubic) and a flip, and make
batches of 64. The files are made here: smooth noise of all scales with hard-edged shapes on it, at quality
90, which gives about the file size of photographs. The paths alternate in rounds, on CPU time of one thread,
so that other work on the machine hits all.

Video: 10 s of 320 x 240 at 30 frames per second, H.264 with a key frame every 60, in which the camera pans
over such a picture. A clip is 16 frames, every fourth, from a random start, cropped and resized to 224.
Frames are reached by seeking to the key frame before them, or by decoding from the start; torchcodec then
makes pixels of every frame on the way, PyAV only of those of the clip.

    python scripts/benchmark_data.py [--images 256] [--rounds 6]
    python scripts/benchmark_data.py --media video [--videos 6] [--rounds 4]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
import torch
from av.video.frame import VideoFrame
from PIL import Image, ImageDraw
from torchvision import transforms

from maskpre.data.dataset import PictureBatches
from maskpre.data.decode_video import Access
from maskpre.data.decoders import DecoderName, open_video, torchcodec_trouble
from maskpre.data.encode_video import Quality, encode_mp4
from maskpre.data.frames import DenseFrames
from maskpre.data.multi_scale import MultiScaleCrop
from maskpre.data.order import SequentialOrder
from maskpre.data.randomness import Draws
from maskpre.data.sources import FolderSource
from maskpre.data.transforms import RandomResizedCrop

WIDTH, HEIGHT, BATCH = 500, 375, 64
VIDEO_WIDTH, VIDEO_HEIGHT, FRAMES = 320, 240, 300
QUALITY = Quality("crf", 23)
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


def pan(photo: np.ndarray, number: int) -> Iterator[VideoFrame]:
    """300 frames of a window that moves over the picture, each video another way."""
    across, down = ((0.7 + 0.1 * number) * step for step in (1.0, 0.6))
    for frame in range(FRAMES):
        left = round(abs((frame * across) % 360 - 180))
        top = round(abs((frame * down) % 270 - 135))
        pixels = photo[top : top + VIDEO_HEIGHT, left : left + VIDEO_WIDTH]
        yield VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def make_videos(count: int) -> list[np.ndarray]:
    """The bytes of `count` videos."""
    generator = np.random.default_rng(0)
    contents = [
        encode_mp4(pan(np.asarray(draw_photo(generator)), number), rate=Fraction(30), quality=QUALITY, gop=60)
        for number in range(count)
    ]
    return [np.frombuffer(bytearray(content), dtype=np.uint8) for content in contents]


def clips_per_second(videos: Sequence[np.ndarray], decoder: DecoderName, access: Access, epoch: int) -> float:
    """Clips per second of CPU time, from the bytes of a file to the crop."""
    sampling = DenseFrames(num_frames=16, stride=4)
    crop = MultiScaleCrop(size=224)
    start = time.process_time()
    for number, data in enumerate(videos):
        draws = Draws(seed=0, epoch=epoch, index=number)
        with open_video(data, channels=3, decoder=decoder, access=access) as video:
            crop(video.read(sampling.random(len(video), draws)).pixels, draws)
    return len(videos) / (time.process_time() - start)


def measure_video(num_videos: int, rounds: int) -> None:
    """Measure every decoder in turns and print its ratio to PyAV that seeks."""
    videos = make_videos(num_videos)
    size = sum(video.size for video in videos) / num_videos / 1000
    shape = f"{FRAMES} frames of {VIDEO_WIDTH} x {VIDEO_HEIGHT}"
    print(f"{num_videos} videos of {shape}, {size:.0f} kB on average")
    ways: list[tuple[DecoderName, Access]] = [("pyav", "seek"), ("pyav", "sequential")]
    trouble = torchcodec_trouble()
    if trouble:
        print(f"without torchcodec: {trouble}")
    else:
        ways += [("torchcodec", "seek"), ("torchcodec", "sequential")]
    speeds: dict[tuple[DecoderName, Access], list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            speeds[way].append(clips_per_second(videos, *way, number))
        print(f"round {number + 1}: " + ", ".join(f"{' '.join(way)} {speeds[way][-1]:.1f}" for way in ways))
    for way in ways:
        ratios = [own / other for own, other in zip(speeds[way], speeds["pyav", "seek"], strict=True)]
        print(
            f"{' '.join(way)}: median {median(speeds[way]):.1f} clips/s per core, ratio {median(ratios):.2f} "
            f"(lowest {min(ratios):.2f}, highest {max(ratios):.2f})"
        )


def measure_pictures(num_images: int, rounds: int) -> None:
    """Measure both paths in turns and print the ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_photos(folder, num_images)
        print(f"{num_images} JPEGs of {WIDTH} x {HEIGHT}, {size:.0f} kB on average")
        ours: list[float] = []
        pillow: list[float] = []
        for number in range(rounds):
            ours.append(images_per_second(our_batches, folder))
            pillow.append(images_per_second(pillow_batches, folder))
            print(f"round {number + 1}: maskpre {ours[-1]:.0f}, Pillow + float {pillow[-1]:.0f} images/s")
    ratios = [left / right for left, right in zip(ours, pillow, strict=True)]
    print(f"median: maskpre {median(ours):.0f}, Pillow + float {median(pillow):.0f} images/s per core")
    print(f"ratio {median(ratios):.2f} (lowest {min(ratios):.2f}, highest {max(ratios):.2f})")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--media", choices=("pictures", "video"), default="pictures")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.media == "video":
        measure_video(arguments.videos, arguments.rounds)
    else:
        measure_pictures(arguments.images, arguments.rounds)


if __name__ == "__main__":
    main()
