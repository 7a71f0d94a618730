"""Pictures and shards the data tests share."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeShard = Callable[[Path, Mapping[str, bytes]], Path]


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
