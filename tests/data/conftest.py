"""Pictures and shards the data tests share."""

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

MakeShard = Callable[[Path, Mapping[str, bytes]], Path]

LEVELS = 12
"""Frame k of a test video is grey of k times this, with a white upper left quarter."""


def jpeg_bytes(seed: int, height: int = 40, width: int = 50) -> bytes:
    """A smooth colourful JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 JPEGs of various sizes in three class folders, some one level deeper. Not to be changed."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(60):
        folder = root / "abc"[number % 3] / ("deep" if number % 5 == 0 else "")
        folder.mkdir(parents=True, exist_ok=True)
        content = jpeg_bytes(number, 40 + number % 7, 50 + number % 11)
        (folder / f"{number:03d}.jpg").write_bytes(content)
    return root


def video_bytes(
    num_frames: int = 20,
    *,
    height: int = 24,
    width: int = 32,
    gop: int = 5,
    rotation: int = 0,
    ticks: Sequence[int] | None = None,
    container: str = "mp4",
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
) -> bytes:
    """A video whose pixels tell its frame numbers; `ticks` are times in milliseconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=8, options=dict(options or {}))
        stream.pix_fmt, stream.height, stream.width, stream.gop_size = "yuv420p", height, width, gop
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            pixels = np.full((height, width, 3), LEVELS * number, np.uint8)
            pixels[: height // 2, : width // 2] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def video() -> Callable[..., bytes]:
    return video_bytes


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 videos of 20 or 21 frames in three class folders. Not to be changed."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(12):
        folder = root / "abc"[number % 3]
        folder.mkdir(exist_ok=True)
        content = video_bytes(20 + number % 2, height=24 + 8 * (number % 2))
        (folder / f"{number:03d}.mp4").write_bytes(content)
    return root


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    return jpeg_bytes


@pytest.fixture(scope="session")
def make_shard() -> MakeShard:
    """Writes a tar with the given members."""

    def make(path: Path, members: Mapping[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return make


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, make_shard: MakeShard) -> Path:
    """A folder with train-000000.tar to train-000003.tar of ten labelled samples each. Not to be changed."""
    root = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        members: dict[str, bytes] = {}
        for number in range(10 * shard, 10 * shard + 10):
            members[f"{number:05d}.jpg"] = jpeg_bytes(number)
            members[f"{number:05d}.cls"] = str(number % 4).encode()
            members[f"{number:05d}.json"] = b"{}"
        make_shard(root / f"train-{shard:06d}.tar", members)
    return root
