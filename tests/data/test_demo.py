import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskpre.data import demo, rendered
from maskpre.data.demo import ensure_demo
from maskpre.data.rendered import default_cache_dir
from maskpre.data.scenes import CLASS_NAMES, RENDERER_VERSION, SceneRanges, label_of, render, sample_scene
from maskpre.data.scenes.shards import RenderJob, write_shard
from maskpre.errors import UserError

TEST_START = 20 << 36


def _small(
    cache: Path, *, num_train: int = 60, num_test: int = 20, seed: int = 0, num_workers: int = 1
) -> Path:
    return ensure_demo(
        cache, image_size=16, num_train=num_train, num_test=num_test, seed=seed, num_workers=num_workers
    )


def _members(folder: Path, split: str) -> dict[str, bytes]:
    members = {}
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                members[member.name] = content.read()
    return members


def _leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"]


def _start(cache: Path, *, num_train: int) -> subprocess.Popen[str]:
    program = (
        "from pathlib import Path; from maskpre.data.demo import ensure_demo; "
        f"print(ensure_demo(Path({str(cache)!r}), image_size=16, num_train={num_train}, num_test=20, "
        "num_workers=1))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for_shard(cache: Path) -> None:
    deadline = time.monotonic() + 180
    while not list(cache.glob(".*partial*/train-000001.tar")):
        assert time.monotonic() < deadline, "no shard appeared"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _small(tmp_path_factory.mktemp("cache"), num_train=270)


def test_shards_hold_the_scenes_in_order(folder: Path) -> None:
    for split, count, start in (("train", 270, 0), ("test", 20, TEST_START)):
        members = _members(folder, split)
        keys = [f"{number:08d}" for number in range(count)]
        assert list(members) == [f"{key}.{ending}" for key in keys for ending in ("cls", "png")]
        for number in (0, 7, count - 1):
            scene = sample_scene(seed=0, index=start + number, ranges=SceneRanges())
            image = np.asarray(Image.open(io.BytesIO(members[f"{number:08d}.png"])))
            np.testing.assert_array_equal(image, render(scene, size=16)["image"])
            assert int(members[f"{number:08d}.cls"]) == label_of(seed=0, index=start + number)


def test_manifest_describes_the_shards(folder: Path) -> None:
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["classes"] == list(CLASS_NAMES)
    assert manifest["recipe"]["renderer"] == RENDERER_VERSION
    train, test = manifest["splits"]["train"], manifest["splits"]["test"]
    assert [(s["file"], s["count"]) for s in train["shards"]] == [
        ("train-000000.tar", 250),
        ("train-000001.tar", 20),
    ]
    assert (train["count"], test["count"]) == (270, 20)
    assert sum(train["class_counts"]) == 270
    assert set(train["class_counts"]) <= {13, 14}
    assert test["class_counts"] == [1] * 20
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset.json",
        "test-000000.tar",
        "train-000000.tar",
        "train-000001.tar",
    ]


def test_manifest_statistics_are_those_of_the_training_pixels(folder: Path) -> None:
    manifest = json.loads((folder / "dataset.json").read_text())
    members = _members(folder, "train")
    images = [np.asarray(Image.open(io.BytesIO(b))) for name, b in members.items() if name.endswith("png")]
    pixels = np.stack(images).reshape(-1, 3) / 255
    np.testing.assert_allclose(manifest["mean"], pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(manifest["std"], pixels.std(axis=0), rtol=1e-6)


def test_second_call_finds_what_the_first_rendered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(rendered, "write_shards", refuse)
    assert _small(folder.parent, num_train=270) == folder


def test_every_parameter_and_the_renderer_version_name_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        _small(tmp_path, num_train=20, num_test=1),
        _small(tmp_path, num_train=21, num_test=1),
        _small(tmp_path, num_train=20, num_test=2),
        _small(tmp_path, num_train=20, num_test=1, seed=1),
        ensure_demo(tmp_path, image_size=8, num_train=20, num_test=1, num_workers=1),
    }
    monkeypatch.setattr(demo, "RENDERER_VERSION", RENDERER_VERSION + 1)
    names.add(_small(tmp_path, num_train=20, num_test=1))
    assert len(names) == 6


def test_vanished_shard_is_rendered_again(tmp_path: Path) -> None:
    folder = _small(tmp_path)
    before = (folder / "train-000000.tar").read_bytes()
    (folder / "train-000000.tar").write_bytes(before[:1000])
    assert _small(tmp_path) == folder
    assert (folder / "train-000000.tar").read_bytes() == before


def test_second_caller_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as callers:
        folders = set(callers.map(lambda _: _small(tmp_path), range(2)))
    errors = capsys.readouterr().err
    assert _leftovers(tmp_path) == [folder.name for folder in folders]
    assert errors.count("60/80") + errors.count("80/80") == 2
    assert errors.count("Another process renders the demo data into ") == 1


@pytest.mark.slow
def test_two_processes_that_start_at_once_share_one_result(tmp_path: Path) -> None:
    processes = [_start(tmp_path, num_train=500) for _ in range(2)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    (name,) = _leftovers(tmp_path)
    assert {Path(out.strip()) for out, _ in results} == {tmp_path / name}
    assert sum("Rendering" in err for _, err in results) == 1
    assert len(_members(tmp_path / name, "train")) == 1000


def test_leftover_of_a_killed_render_is_not_believed(folder: Path, tmp_path: Path) -> None:
    leftover = tmp_path / f".{folder.name}.partial-1"
    shutil.copytree(folder, leftover)
    (leftover / "dataset.json").unlink()
    assert _small(tmp_path, num_train=270) == tmp_path / folder.name
    assert _leftovers(tmp_path) == [folder.name]


@pytest.mark.slow
def test_killed_render_leaves_nothing_that_is_believed(tmp_path: Path) -> None:
    process = _start(tmp_path, num_train=2000)
    _wait_for_shard(tmp_path)
    process.kill()
    process.communicate()
    (leftover,) = _leftovers(tmp_path)
    assert ".partial-" in leftover
    done = ensure_demo(tmp_path, image_size=16, num_train=2000, num_test=20, num_workers=1)
    assert _leftovers(tmp_path) == [done.name]
    assert len(_members(done, "train")) == 4000


def test_interrupted_render_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(jobs: list[RenderJob], **_: object) -> None:
        write_shard(jobs[0])
        assert ".partial-" in "".join(_leftovers(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(rendered, "write_shards", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _small(tmp_path)
    assert _leftovers(tmp_path) == []


@pytest.fixture
def tiny_disk() -> Iterator[None]:
    """Lets no file grow beyond 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("tiny_disk")
def test_full_disk_names_the_folder_and_cleans_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File too large; set MASKPRE_CACHE") as caught:
        _small(tmp_path)
    assert f"can't write the demo data to {tmp_path}: " in str(caught.value)
    assert _leftovers(tmp_path) == []


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write the demo data to .*/file/cache: Not a directory"):
        _small(tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train": 0}, "demo data: num_train must be at least 1, got 0"),
        ({"num_test": -3}, "demo data: num_test must be at least 1, got -3"),
        ({"image_size": 4}, "demo data: image_size must be at least 8, got 4"),
        ({"seed": -1}, "demo data: seed must be at least 0, got -1"),
        ({"num_workers": 0}, "demo data: num_workers must be at least 1, got 0"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path: Path, change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensure_demo(tmp_path, **change)
    assert list(tmp_path.iterdir()) == []


def test_cache_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKPRE_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("MASKPRE_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "maskpre"
