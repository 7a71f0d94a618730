import json
import tarfile

import numpy as np
import pytest

from maskpre.data.decode_video import VideoFile
from maskpre.data.demo_video import ensure_demo_video
from maskpre.data.scenes.clips import ClipJob
from maskpre.data.scenes.motion import MOTIONS, ClipRanges, motion_of
from maskpre.errors import UserError


def _small(cache, **changes):
    settings = {"image_size": 32, "num_frames": 6, "num_train": 20, "num_test": 10, "num_workers": 1}
    return ensure_demo_video(cache, **(settings | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _small(tmp_path_factory.mktemp("cache"))


def _members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_shards_hold_real_mp4_of_the_rendered_frames(folder):
    members = _members(folder / "train-000000.tar")
    assert list(members)[:2] == ["00000000.cls", "00000000.mp4"]
    job = ClipJob(
        path=folder,
        seed=0,
        first_index=0,
        first_key=0,
        count=20,
        image_size=32,
        num_frames=6,
        ranges=ClipRanges(),
    )
    for index in (0, 13):
        label = motion_of(seed=0, index=index)
        assert int(members[f"{index:08d}.cls"]) == label
        data = np.frombuffer(members[f"{index:08d}.mp4"], np.uint8)
        with VideoFile(data, channels=3) as video:
            assert len(video) == 6
            pixels = video.read(np.arange(6)).pixels.permute(0, 2, 3, 1).numpy()
        rendered = job.frames(index, label)
        assert pixels.shape == rendered.shape
        assert np.abs(pixels.astype(int) - rendered).mean() < 6


def test_the_manifest_names_the_motions_evenly(folder):
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["classes"] == [motion.name for motion in MOTIONS]
    assert manifest["splits"]["train"]["class_counts"] == [2] * 10
    assert manifest["splits"]["test"]["class_counts"] == [1] * 10
    assert all(0.2 < mean < 0.8 for mean in manifest["mean"])


def test_train_and_test_share_no_clip(folder):
    train, test = _members(folder / "train-000000.tar"), _members(folder / "test-000000.tar")
    contents = [content for name, content in (*train.items(), *test.items()) if name.endswith("mp4")]
    assert len(set(contents)) == 30


def test_the_second_call_finds_what_the_first_rendered(folder):
    before = (folder / "train-000000.tar").stat().st_mtime_ns
    assert _small(folder.parent) == folder
    assert (folder / "train-000000.tar").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 33}, "image_size must be even for H.264, got 33"),
        ({"num_frames": 1}, "num_frames must be at least 2, got 1"),
        ({"num_train": 0}, "num_train must be at least 1, got 0"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        _small(tmp_path, **change)
