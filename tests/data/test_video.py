import numpy as np
import pytest
import torch

from maskpre.data.decode_video import VideoFile
from maskpre.data.frames import DenseFrames
from maskpre.data.order import Request
from maskpre.data.pixel_cache import PixelCache
from maskpre.data.sources import VIDEOS, FolderSource
from maskpre.data.transforms import RandomResizedCrop, SideCrop
from maskpre.data.video import TrainingClips, VideoBatches, VideoReader, ViewClips

LEVELS = 12
WHOLE = SideCrop(size=24, place=1.0)


def training(root, on_bad="replace", transform=WHOLE, repeats=1, stride=2, **settings):
    reader = VideoReader(source=FolderSource(root=root, media=VIDEOS), channels=3, decoder="pyav", **settings)
    sampling = DenseFrames(num_frames=4, stride=stride)
    clips = TrainingClips(sampling=sampling, transform=transform, repeats=repeats)
    return VideoBatches(reader=reader, clips=clips, seed=1, on_bad=on_bad)


def request(*indices, epoch=0):
    return Request(np.array(indices), epoch)


def numbers(batch):
    """Frame numbers of every clip of a batch, as the right edge of the frames tells them."""
    return (batch["video"][:, 0, :, -2, -2] / LEVELS).round().int().tolist()


def test_a_batch_holds_what_the_contract_says(videos):
    loaded = training(videos)[request(3, 11, 6, epoch=4)]
    batch = loaded.batch
    assert (loaded.bad, loaded.failure) == ([], "")
    assert sorted(batch) == ["epoch", "index", "label", "video"]
    assert (batch["video"].dtype, batch["video"].shape) == (torch.uint8, (3, 3, 4, 24, 24))
    assert [batch[name].dtype for name in ("label", "index", "epoch")] == [torch.int64] * 3
    assert batch["index"].tolist() == [3, 11, 6]
    assert batch["epoch"].tolist() == [4, 4, 4]
    assert batch["label"].tolist() == [0, 2, 1]
    assert (np.diff(numbers(batch)) == 2).all()


def test_clips_depend_on_epoch_and_sample_alone(videos):
    data = training(videos)
    starts = {clip[0] for epoch in range(6) for clip in numbers(data[request(3, epoch=epoch)].batch)}
    assert len(starts) > 2
    alone = data[request(11, epoch=4)].batch["video"][0]
    assert torch.equal(data[request(3, 11, epoch=4)].batch["video"][1], alone)


def test_repeats_are_other_crops_of_the_same_frames(videos):
    crop = RandomResizedCrop(size=16, scale=(0.1, 0.6))
    batch = training(videos, transform=crop, repeats=3)[request(3, 5, epoch=2)].batch
    assert batch["index"].tolist() == [3, 3, 3, 5, 5, 5]
    assert batch["epoch"].tolist() == [6, 7, 8, 6, 7, 8]
    assert not torch.equal(batch["video"][0], batch["video"][1])
    same = training(videos, repeats=3)[request(3, epoch=2)].batch
    assert torch.equal(same["video"][0], same["video"][2])


def test_a_video_is_decoded_once_for_all_repeats(videos, monkeypatch):
    data = training(videos, repeats=4)
    reads = []
    read = data.source.read
    monkeypatch.setattr(data.source, "read", lambda index: reads.append(index) or read(index))
    assert len(data[request(3, 5)].batch["video"]) == 8
    assert reads == [3, 5]


def test_remembered_videos_give_the_same_clips(videos):
    plain = training(videos)
    shape = (20, 3, 24, 32)
    cached = training(videos, cache=PixelCache(count=12, shape=shape))
    for epoch in range(3):
        expected, batch = (data[request(*range(12), epoch=epoch)].batch for data in (plain, cached))
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert [cached.reader.cache.get(index) is None for index in (0, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("shape", [(21, 3, 24, 32), (20, 3, 32, 32)], ids=["length", "height"])
def test_videos_that_memory_has_no_room_for_are_read_in_part(videos, monkeypatch, shape):
    cached = training(videos, cache=PixelCache(count=12, shape=shape))
    reads = []
    read = VideoFile.read
    monkeypatch.setattr(VideoFile, "read", lambda *args: reads.append(args[1].tolist()) or read(*args))
    for epoch in range(2):
        assert torch.equal(
            cached[request(0, epoch=epoch)].batch["video"],
            training(videos)[request(0, epoch=epoch)].batch["video"],
        )
    assert [len(positions) for positions in reads] == [4] * 4
    assert cached.reader.cache.get(0) is None


def test_views_follow_each_other(videos):
    reader = VideoReader(source=FolderSource(root=videos, media=VIDEOS), channels=3, decoder="pyav")
    crops = [SideCrop(size=24, place=place) for place in (0.0, 1.0)]
    clips = ViewClips(sampling=DenseFrames(num_frames=4, stride=2), crops=crops, clips=3)
    batch = VideoBatches(reader=reader, clips=clips, seed=1, on_bad="drop")[request(0, 2)].batch
    assert batch["index"].tolist() == [0] * 6 + [2] * 6
    assert [clip[0] for clip in numbers(batch)[1:6:2]] == [0, 6, 12]
    left, right = batch["video"][0], batch["video"][1]
    # Nearly: x264 encodes frames this small with what it finds in memory.
    assert left[0, 0, 2, 2] > 248
    assert not torch.equal(left, right)


@pytest.fixture
def damaged(tmp_path, video):
    """Nine videos; numbers 1 to 7 are bad, each for another reason."""
    contents = [video() for _ in range(9)]
    contents[1] = b"this is text, whatever the name says"
    contents[2] = b""
    contents[3] = contents[3][: len(contents[3]) // 2]
    contents[4] = video(6)
    contents[5] = video(rotation=90)
    contents[6] = video(ticks=np.cumsum([100, 100, 500, 20] * 5).tolist())
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.mp4").write_bytes(content)
    (tmp_path / "7.mp4").unlink()
    (tmp_path / "7.mp4").symlink_to(tmp_path / "nowhere")
    return tmp_path


def test_bad_videos_are_named_with_the_reason(damaged):
    loaded = training(damaged, on_bad="drop", min_frames=8)[request(*range(9))]
    assert loaded.batch["index"].tolist() == [0, 8]
    assert {sample.number: sample.reason for sample in loaded.bad} == {
        1: "can't be decoded: Invalid data found when processing input",
        2: "is empty (0 bytes)",
        3: "can't be decoded: Invalid data found when processing input",
        4: "is too short: 6 frames, data.min_frames is 8",
        5: "is rotated by 90 degrees (data.rotated=turn turns it)",
        6: "has a variable frame rate (data.variable_rate=keep takes it as it is)",
        7: "can't be read: No such file or directory",
    }


def test_bad_videos_are_replaced_the_same_way_every_time(damaged):
    whole = training(damaged, min_frames=8)[request(*range(9), epoch=1)]
    index = whole.batch["index"].tolist()
    assert set(index) <= {0, 8}
    assert len(index) == 9
    again = training(damaged, min_frames=8)
    alone = [again[request(number, epoch=1)].batch["index"].item() for number in range(9)]
    assert alone == index


def test_rotated_short_and_unsteady_videos_can_be_kept(damaged):
    data = training(damaged, on_bad="drop", variable_rate="keep", rotated="turn")
    batch = data[request(*range(9))].batch
    assert batch["index"].tolist() == [0, 4, 5, 6, 8]


def test_the_first_bad_video_can_end_the_run(damaged):
    loaded = training(damaged, on_bad="raise", min_frames=8)[request(0, 4)]
    assert loaded.batch is None
    assert loaded.failure.endswith(
        "4.mp4' is too short: 6 frames, data.min_frames is 8 (data.on_error=raise)"
    )
