import json
import tarfile

import numpy as np
import pytest

from maskpre.data.decode_video import VideoFile
from maskpre.data.demo_video import ensure_demo_video
from maskpre.data.scenes.clips import SceneClips
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


@pytest.fixture(scope="module")
def clips():
    """What the shards were written from."""
    return SceneClips(seed=0, image_size=32, num_frames=6, quantiser=20, ranges=ClipRanges())


def _decoded(content):
    with VideoFile(np.frombuffer(content, np.uint8), channels=3) as video:
        assert len(video) == 6
        return video.read(np.arange(6)).pixels.permute(0, 2, 3, 1).numpy()


def test_shards_hold_real_mp4_of_the_rendered_frames(folder, clips):
    members = _members(folder / "train-000000.tar")
    assert list(members)[:2] == ["00000000.cls", "00000000.mp4"]
    for index in (0, 13):
        label = motion_of(seed=0, index=index)
        assert int(members[f"{index:08d}.cls"]) == label
        pixels = _decoded(members[f"{index:08d}.mp4"])
        assert members[f"{index:08d}.mp4"] == clips.make(index).content
        rendered = clips.frames(index, label)
        assert pixels.shape == rendered.shape
        assert np.abs(pixels.astype(int) - rendered).mean() < 6


def test_no_frame_is_coded_by_how_its_neighbours_move(clips, monkeypatch):
    """The first frame looks the same whatever the motion, and any frame the same in any company."""
    content = {}
    for motion in range(10):
        monkeypatch.setattr("maskpre.data.scenes.clips.motion_of", lambda *, seed, index, m=motion: m)
        content[motion] = _decoded(clips.make(4).content)
    assert all(np.array_equal(pixels[0], content[0][0]) for pixels in content.values())
    assert not np.array_equal(content[0][5], content[1][5])
    frames = clips.frames(4, 0)
    monkeypatch.setattr(SceneClips, "frames", lambda *_: frames[[5, 1, 4, 0, 2, 3]])
    assert np.array_equal(_decoded(clips.make(4).content), content[0][[5, 1, 4, 0, 2, 3]])


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
