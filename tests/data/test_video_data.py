import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from maskpre.config import CONFIG_DIR
from maskpre.data import DemoVideoData, VideoFolderData, VideoShardsData
from maskpre.errors import UserError

SMALL = ("data.image_size=16", "data.num_frames=4", "data.frame_stride=2", "data.num_workers=0")


def composed(kind, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        settings = [f"+data={kind}", "+seed=0", "data.batch_size=4", *SMALL, *overrides]
        return instantiate(compose(overrides=settings).data)


def collect(data, **settings):
    return list(data.train_loader(**settings))


def test_a_folder_needs_its_root_alone(videos):
    data = composed("video_folder", f"data.root={videos}")
    assert isinstance(data, VideoFolderData)
    assert (data.num_classes, data.num_train, data.steps_per_epoch) == (3, 12, 3)
    batch = next(iter(data.train_loader(num_steps=1)))
    assert batch["video"].shape == (4, 3, 4, 16, 16)
    assert next(iter(data.eval_loader("train", batch_size=3)))["video"].shape == (3, 3, 4, 16, 16)


def test_lists_choose_among_the_files(videos, tmp_path):
    (tmp_path / "train.csv").write_text("a/000.mp4,1\nb/001.mp4,0\n\nc/002.mp4,1\na/003.mp4,0\n")
    (tmp_path / "val.csv").write_text("c/005.mp4,1\n")
    data = composed(
        "video_folder",
        f"data.root={videos}",
        f"data.files={tmp_path}/train.csv",
        f"data.val_files={tmp_path}/val.csv",
    )
    assert data.has_labels
    assert data.source("train").labels.tolist() == [1, 0, 1, 0]
    assert data.source("val").key(0) == f"{videos}/c/005.mp4"
    assert next(iter(data.eval_loader("val")))["label"].tolist() == [1]


def test_a_list_alone_starts_from_its_own_folder(videos, tmp_path):
    (videos.parent / "train.csv").write_text(f"{videos.name}/a/000.mp4\n{videos}/b/001.mp4\n")
    source = composed("video_folder", f"data.files={videos.parent}/train.csv").source("train")
    assert [source.key(i) for i in (0, 1)] == [f"{videos}/a/000.mp4", f"{videos}/b/001.mp4"]
    with pytest.raises(InstantiationException, match=r"data\.root or data\.files must be set"):
        composed("video_folder")


def test_shards_of_video(videos, tmp_path, make_shard):
    members = {}
    for number, path in enumerate(sorted(videos.rglob("*.mp4"))):
        members |= {f"{number}.mp4": path.read_bytes(), f"{number}.cls": b"%d" % (number % 2)}
    make_shard(tmp_path / "train-000000.tar", members)
    data = composed("video_shards", f"data.shards='{tmp_path}/train-{{000000..000000}}.tar'")
    assert isinstance(data, VideoShardsData)
    assert data.source("train").describe().endswith("12 videos in 1 shards, 2 classes")
    folder = composed("video_folder", f"data.root={videos}")
    ours, theirs = collect(data, num_steps=3), collect(folder, num_steps=3)
    for batch, expected in zip(ours, theirs, strict=True):
        assert torch.equal(batch["video"], expected["video"])


@pytest.mark.parametrize(("world", "micro_batches"), [(2, 1), (2, 2), (1, 4)])
def test_ranks_together_see_the_same_clips(videos, world, micro_batches):
    data = composed("video_folder", f"data.root={videos}", "data.repeats=2")
    alone = collect(data, num_steps=5, start_step=2)
    settings = {"num_steps": 5, "start_step": 2, "world": world, "micro_batches": micro_batches}
    ranks = [collect(data, rank=rank, **settings) for rank in range(world)]
    for step, expected in enumerate(alone):
        parts = [r[step * micro_batches + part] for r in ranks for part in range(micro_batches)]
        for name in expected:
            assert torch.equal(torch.cat([part[name] for part in parts]), expected[name])


def test_the_checkpoint_remembers_what_clips_depend_on(videos):
    data = composed("video_folder", f"data.root={videos}", "data.repeats=2", "data.decoder=pyav")
    own = {"decoder": "pyav", "repeats": 2, "num_frames": 4, "frame_stride": 2, "sampling": "dense"}
    assert own.items() <= data.state_dict().items()


def test_test_views_are_counted_in_videos(videos):
    data = composed("video_folder", f"data.root={videos}")
    batches = list(data.view_loader("train", clips=2, crops=3, batch_size=5))
    assert [len(batch["index"]) for batch in batches] == [30, 30, 12]
    index = torch.cat([batch["index"] for batch in batches])
    assert index.tolist() == np.repeat(np.arange(12), 6).tolist()


def test_bad_videos_are_counted_and_named(videos, video, tmp_path, caplog):
    for number in range(5):
        (tmp_path / f"{number}.mp4").write_bytes(video())
    (tmp_path / "5.mp4").write_bytes(b"")
    data = composed("video_folder", f"data.root={tmp_path}")
    batches = collect(data, num_steps=6)
    assert [len(batch["index"]) for batch in batches] == [4] * 6
    assert data.skipped.total >= 2
    assert caplog.text.count(f"skipped '{tmp_path}/5.mp4': it is empty (0 bytes)") == 1
    strict = composed("video_folder", f"data.root={tmp_path}", "data.on_error=raise")
    with pytest.raises(UserError, match=r"5.mp4' is empty \(0 bytes\) \(data.on_error=raise\)"):
        collect(strict, num_steps=6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.channels=2", "data.channels must be 1 or 3 for video, got 2"),
        ("data.repeats=0", "data.repeats must be at least 1, got 0"),
        ("data.min_frames=0", "data.min_frames must be at least 1, got 0"),
        ("data.frame_stride=0", r"num_frames \(4\) and frame_stride \(0\) must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(videos, override, message):
    overrides = [override]
    if override == "data.channels=2":
        overrides += ["data.mean=[0.5,0.5]", "data.std=[0.5,0.5]"]
    with pytest.raises(Exception, match=message):
        composed("video_folder", f"data.root={videos}", *overrides)


def test_remote_shards_are_refused():
    data = composed("video_shards", "data.shards='pipe:cat {0..3}.tar'")
    with pytest.raises(UserError, match=r"'pipe:cat .*' is a remote stream, .*: copy its shards to a local"):
        data.source("train")


def test_demo_clips_come_from_memory_after_the_first_pass(tmp_path):
    sizes = ("data.num_train=12", "data.num_val=10", f"data.cache_dir={tmp_path}", "data.frame_stride=1")
    data = composed("demo_video", *sizes)
    assert isinstance(data, DemoVideoData)
    assert data.num_classes == 10
    first = collect(data, num_steps=3)
    assert first[0]["video"].shape == (4, 3, 4, 16, 16)
    for shard in tmp_path.rglob("*.tar"):
        shard.write_bytes(b"")
    again = collect(data, num_steps=3)
    assert all(torch.equal(a["video"], b["video"]) for a, b in zip(first, again, strict=True))
    assert data.skipped.total == 0
