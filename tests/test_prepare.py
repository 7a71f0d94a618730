import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from maskpre.data import repack
from maskpre.data.decode import decode_picture
from maskpre.data.packing import Packing
from maskpre.data.sources import VIDEOS, ShardSource
from maskpre.errors import UserError, full_disks_named
from maskpre.prepare import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """90 pictures in three folders; a/00.jpg is text."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(90):
        folder = root / "abc"[number // 30]
        folder.mkdir(exist_ok=True)
        pixels = generator.integers(0, 256, (30, 40 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.jpg")
    (root / "a" / "00.jpg").write_bytes(b"text")
    return root


def shard_hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


def test_shards_hold_the_files_and_labels(pictures, tmp_path, caplog):
    manifest = Packing(src=str(pictures), dst=str(tmp_path), samples_per_shard=20, num_workers=1).run()
    described = json.loads(manifest.read_text())
    split = described["splits"]["train"]
    assert described["classes"] == ["a", "b", "c"]
    assert (split["count"], split["class_counts"]) == (89, [29, 30, 30])
    assert split["bad"] == [str(pictures / "a" / "00.jpg")]
    assert sorted(shard["count"] for shard in split["shards"]) == [10, 19, 20, 20, 20]
    assert split["mean"] == pytest.approx([0.5] * 3, abs=0.02)
    assert split["std"] == pytest.approx([0.24] * 3, abs=0.05)
    assert f"skipped '{pictures}/a/00.jpg': it is no picture of a known format" in caplog.text

    source = ShardSource(shards=f"{tmp_path}/train-*.tar", cache_dir=tmp_path)
    assert len(list((tmp_path / ".maskpre-index").iterdir())) == 5
    for index in range(len(source)):
        sample = source.read(index)
        folder, name = source.key(index).split("_")[-2:]
        original = pictures / folder[-1] / f"{name}.jpg"
        assert sample.data.tobytes() == original.read_bytes()
        assert "abc"[sample.label] == folder[-1]


def test_neighbours_are_spread_or_kept(pictures, tmp_path):
    for order in ("mixed", "sorted"):
        settings = {"order": order, "samples_per_shard": 30, "check": "none", "num_workers": 1}
        Packing(src=str(pictures), dst=str(tmp_path / order), **settings).run()
    labels = {
        order: ShardSource(shards=f"{tmp_path}/{order}/train-000000.tar", cache_dir=tmp_path).labels
        for order in ("mixed", "sorted")
    }
    assert set(labels["mixed"].tolist()) == {0, 1, 2}
    assert set(labels["sorted"].tolist()) == {0}


def pack_slowly(settings: dict[str, object]) -> None:
    os.setsid()
    decode = repack.decode_picture
    repack.decode_picture = lambda *arguments: (time.sleep(0.03), decode(*arguments))[1]
    Packing(**settings).run()


def wait_for_group(leader: int) -> None:
    """Until the helpers of a killed process have ended as well."""
    for _ in range(600):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("helpers outlive their process")


def test_a_killed_preparation_goes_on_and_gives_the_same_shards(pictures, tmp_path):
    settings = {"src": str(pictures), "samples_per_shard": 5, "num_workers": 2}
    Packing(dst=str(tmp_path / "whole"), **settings).run()
    cut = tmp_path / "cut"
    process = multiprocessing.get_context("fork").Process(
        target=pack_slowly, args=(settings | {"dst": str(cut)},)
    )
    process.start()
    while len(list(cut.glob("*.tar"))) < 4 and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    wait_for_group(process.pid)
    finished = {path: path.stat().st_mtime_ns for path in cut.glob("*.tar")}
    assert 4 <= len(finished) < 18
    (cut / ".train-000099.tar.leftover.tmp").write_bytes(b"half a shard")
    spoilt = max(finished)
    spoilt.write_bytes(spoilt.read_bytes()[:-512])

    Packing(dst=str(cut), **settings).run()
    assert shard_hashes(cut) == shard_hashes(tmp_path / "whole")
    assert not list(cut.glob(".*.tmp"))
    kept = [path for path in finished if path != spoilt and path.stat().st_mtime_ns == finished[path]]
    assert len(kept) >= len(finished) - 3
    left, right = (json.loads((folder / "dataset.json").read_text()) for folder in (cut, tmp_path / "whole"))
    assert left == right


def test_other_settings_or_pictures_are_refused(pictures, tmp_path):
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    dst = str(tmp_path / "shards")
    Packing(src=str(copy), dst=dst, samples_per_shard=30, num_workers=1).run()
    with pytest.raises(UserError, match=r"made otherwise \(samples_per_shard was 30, now 31\)"):
        Packing(src=str(copy), dst=dst, samples_per_shard=31, num_workers=1).run()
    (copy / "a" / "01.jpg").unlink()
    with pytest.raises(UserError, match="samples was 90, now 89"):
        Packing(src=str(copy), dst=dst, samples_per_shard=30, num_workers=1).run()


def test_a_second_split_gets_the_classes_of_the_first(pictures, tmp_path):
    for split, folders in (("train", "abc"), ("val", "bc")):
        for folder in folders:
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / split / folder).symlink_to(pictures / folder)
        Packing(src=str(tmp_path / split), dst=str(tmp_path / "out"), name=split, num_workers=1).run()
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert described["classes"] == ["a", "b", "c"]
    assert described["splits"]["val"]["class_counts"] == [0, 30, 30]
    val = ShardSource(shards=f"{tmp_path}/out/val-*.tar", cache_dir=tmp_path)
    assert set(val.labels.tolist()) == {1, 2}


@pytest.mark.parametrize("channels", [1, 3])
def test_large_pictures_are_reduced(pictures, tmp_path, channels):
    settings = {"resize": 20, "channels": channels, "num_workers": 1}
    Packing(src=str(pictures / "b"), dst=str(tmp_path), **settings).run()
    source = ShardSource(shards=f"{tmp_path}/*.tar", cache_dir=tmp_path)
    shapes = {tuple(decode_picture(source.read(index).data, channels).shape) for index in range(len(source))}
    assert shapes == {(channels, 20, width * 20 // 30) for width in (40, 41, 42)}


def test_nothing_good_is_an_error(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "1.jpg").write_bytes(b"text")
    with pytest.raises(UserError, match=r"none of the 1 pictures in '.*' is good, e.g. '.*/1.jpg' is no"):
        Packing(src=str(tmp_path / "src"), dst=str(tmp_path / "dst"), num_workers=1).run()


def test_only_one_process_prepares(pictures, tmp_path):
    state = tmp_path / ".maskpre-prepare"
    state.mkdir()
    with (
        FileLock(state / "train.lock"),
        pytest.raises(UserError, match=r"another process is preparing 'train' in"),
    ):
        Packing(src=str(pictures), dst=str(tmp_path)).run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples_per_shard": 0}, "samples_per_shard must be at least 1, got 0"),
        ({"quality": 0}, r"quality must be in 1..100, got 0"),
        ({"gop": 12}, r"gop \(12\) must be at least 1 and is for media=video"),
        ({"media": "video", "crf": 52}, r"crf must be in 0..51, got 52"),
        ({"media": "video", "channels": 1}, r"channels must be 3 for media=video, got 1"),
        ({"resize": 10, "channels": 5}, r"resize \(10\) must be positive and needs 1 or 3 channels, got 5"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Packing(src="src", dst="dst", **settings)


def test_the_command_says_how_to_go_on(pictures, tmp_path, capfd, monkeypatch):
    arguments = [f"src={pictures}", f"dst={tmp_path}", "num_workers=1", "samples_per_shard=45"]
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
    main()
    out = capfd.readouterr().out
    assert "89 pictures in 2 shards, 1 left out" in out
    assert f"data=webdataset \"data.shards='{tmp_path}/train-*.tar'\"" in out
    assert f"skipped '{pictures}/a/00.jpg': it is no picture of a known format" in out


def test_the_command_refuses_misspelt_and_missing_settings(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare", f"dst={tmp_path}", "sampels_per_shard=45"])
    with pytest.raises(SystemExit):
        main()
    error = capfd.readouterr().err
    assert "src: required, but not set" in error
    assert "samples_per_shard" in error


def test_a_list_says_what_is_packed_and_its_classes(pictures, tmp_path):
    (tmp_path / "train.csv").write_text("b/31.jpg 2\nc/60.jpg 0\na/01.jpg 2\n")
    (tmp_path / "val.csv").write_text(f"{pictures}/b/40.jpg 1\n")
    settings = {"src": str(pictures), "dst": str(tmp_path / "out"), "separator": " ", "num_workers": 1}
    for split in ("train", "val"):
        manifest = Packing(files=str(tmp_path / f"{split}.csv"), name=split, order="sorted", **settings).run()
    described = json.loads(manifest.read_text())
    assert described["classes"] == ["0", "1", "2"]
    assert described["splits"]["train"]["class_counts"] == [1, 0, 2]
    assert described["splits"]["val"]["class_counts"] == [0, 1, 0]
    train = ShardSource(shards=f"{tmp_path}/out/train-*.tar", cache_dir=tmp_path)
    assert train.labels.tolist() == [2, 0, 2]
    assert train.read(1).data.tobytes() == (pictures / "c" / "60.jpg").read_bytes()
    assert train.key(0).endswith("00000000_b_31")

    (tmp_path / "train.csv").write_text("b/31.jpg 1\nc/60.jpg 0\na/01.jpg 2\n")
    with pytest.raises(UserError, match=r"made otherwise .*listing was"):
        Packing(files=str(tmp_path / "train.csv"), order="sorted", **settings).run()


def test_files_that_no_shard_s_reader_would_find_are_left_out(tmp_path):
    for name in ("a.mp4", "b.gif"):
        (tmp_path / name).write_bytes(b"video")
    (tmp_path / "list.txt").write_text("a.mp4,0\nb.gif,1\n")
    settings = {"src": str(tmp_path), "dst": str(tmp_path / "out"), "files": str(tmp_path / "list.txt")}
    manifest = Packing(**settings, media="video", check="none", num_workers=1).run()
    split = json.loads(manifest.read_text())["splits"]["train"]
    assert (split["count"], split["class_counts"]) == (1, [1, 0])
    assert split["bad"] == [str(tmp_path / "b.gif")]


def test_a_full_disk_is_named(pictures, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tarfile.TarFile.addfile", full)
    with (
        pytest.raises(UserError, match=r"train-000000\.tar can't be written: No space left"),
        full_disks_named(),
    ):
        Packing(src=str(pictures), dst=str(tmp_path / "out"), num_workers=1).run()


def test_listed_videos_are_packed_by_the_command(tmp_path, capfd, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.webm").write_bytes(b"video")
    (tmp_path / "list.txt").write_text("0.webm 4\n2.webm 1\n")
    arguments = [f"src={tmp_path}", f"dst={tmp_path / 'out'}", f"files={tmp_path / 'list.txt'}"]
    options = ["media=video", "separator=' '", "check=none", "num_workers=1"]
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments, *options])
    main()
    assert "2 videos in 1 shards, 0 left out" in capfd.readouterr().out
    source = ShardSource(shards=f"{tmp_path}/out/*.tar", cache_dir=tmp_path, media=VIDEOS)
    assert sorted(source.labels.tolist()) == [1, 4]
