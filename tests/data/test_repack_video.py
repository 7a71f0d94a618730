import io
import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace

from maskpre.data import VideoShardsData
from maskpre.data.decode_video import VideoFile
from maskpre.data.packing import Packing
from maskpre.data.repack import Repacked
from maskpre.data.repack_video import VideoRepack
from maskpre.data.sources import BadSampleError, RawSample
from maskpre.data.transforms import CentreCrop

LEVELS = 12


def repacked(content, **settings):
    raw = RawSample("key", np.frombuffer(bytearray(content), np.uint8), -1)
    settings = {"resize": None, "gop": None, "crf": 10, "decode": True} | settings
    return VideoRepack(**settings)(raw, ".mov")


def opened(result):
    return VideoFile(np.frombuffer(bytearray(result.content), np.uint8), channels=3)


def numbers(video):
    pixels = video.read(np.arange(len(video))).pixels
    return (pixels[:, 0, -2, -2] / LEVELS).round().int().tolist()


def test_short_side_and_key_frames_are_as_wanted(video):
    result = repacked(video(height=60, width=81 + 1), resize=30, gop=4)
    with opened(result) as file:
        assert result.extension == ".mp4"
        assert numbers(file) == list(range(20))
        assert np.flatnonzero(file.timeline.keys).tolist() == [0, 4, 8, 12, 16]
        assert file.read(np.arange(1)).pixels.shape == (1, 3, 30, 40)
    assert result.moments.shape == (2, 3)


def test_small_videos_are_not_enlarged(video):
    with opened(repacked(video(), resize=100)) as file:
        assert file.read(np.arange(1)).pixels.shape == (1, 3, 24, 32)


def test_rotated_videos_are_upright_then(video):
    with opened(repacked(video(rotation=90), gop=8)) as file:
        frames = file.read(np.arange(1))
    assert (frames.pixels.shape, frames.rotation) == ((1, 3, 32, 24), 0)
    assert frames.pixels[0, 0, -3, 2] > 240
    assert frames.pixels[0, 0, 2, 2] < 20


@pytest.mark.parametrize(
    ("codec", "pixels", "colorspace", "full"),
    [
        ("libx264", "yuv420p", Colorspace.ITU709, False),
        ("libx264", "yuv420p", Colorspace.ITU601, False),
        ("libx264", "yuvj420p", Colorspace.ITU601, True),
        ("mjpeg", "yuvj420p", Colorspace.ITU601, True),
    ],
)
@pytest.mark.parametrize("colour", [(0, 190, 0), (190, 30, 30), (16, 16, 16)])
def test_colours_stay_whatever_they_were_stored_as(codec, pixels, colorspace, full, colour):
    whole = ColorRange.JPEG if full else ColorRange.MPEG
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream(codec, rate=8)
        stream.pix_fmt, stream.height, stream.width = pixels, 64, 64
        context = stream.codec_context
        context.colorspace, context.color_range = colorspace, whole
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), colour, np.uint8), format="rgb24")
        frame = frame.reformat(format=pixels, dst_colorspace=colorspace, dst_color_range=whole)
        for number in range(4):
            frame.pts, frame.time_base = number, Fraction(1, 8)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with opened(Repacked(buffer.getvalue(), ".mp4", None)) as file:
        before = file.read(np.arange(1)).pixels.float().mean(dim=(0, 2, 3))
    assert (before - torch.tensor(colour)).abs().max() < 6
    result = repacked(buffer.getvalue(), gop=4)
    with opened(result) as file:
        after = file.read(np.arange(1)).pixels.float().mean(dim=(0, 2, 3))
    assert (after - before).abs().max() < 5


def test_unsteady_videos_are_steady_then(video):
    ticks = np.cumsum([100, 100, 500, 100] * 5)
    with opened(repacked(video(ticks=ticks.tolist()), gop=8)) as file:
        assert file.timeline.is_steady
        seconds = np.diff(file.timeline.ticks).mean() * float(file.time_base) * len(file)
        assert seconds == pytest.approx((ticks[-1] - ticks[0]) / 1000, rel=0.1)
        shown = numbers(file)
    assert shown == sorted(shown)
    assert shown[0] == 0
    assert shown[-1] >= 18
    times = ticks[np.array(shown)] - ticks[0]
    wanted = np.linspace(0, ticks[-1] - ticks[0], len(shown))
    assert np.abs(times - wanted).max() <= 500


def test_files_are_kept_where_nothing_shall_change(video):
    content = video()
    result = repacked(content)
    assert (result.content, result.extension) == (content, ".mov")
    unread = repacked(b"whatever", decode=False)
    assert (unread.content, unread.moments) == (b"whatever", None)


@pytest.mark.parametrize("settings", [{}, {"resize": 16}])
def test_bad_videos_stay_out(video, settings):
    content = video()
    with pytest.raises(BadSampleError, match="can't be decoded"):
        repacked(content[: len(content) // 2], **settings)


def test_a_folder_of_videos_becomes_shards_once(videos, tmp_path, caplog):
    source = tmp_path / "src"
    for path in sorted(videos.rglob("*.mp4")):
        (source / path.parent.name).mkdir(parents=True, exist_ok=True)
        (source / path.parent.name / path.name).write_bytes(path.read_bytes())
    (source / "a" / "000.mp4").write_bytes(b"text")
    settings = {"src": str(source), "dst": str(tmp_path / "dst"), "media": "video", "samples_per_shard": 5}
    packing = Packing(**settings, resize=16, gop=8, num_workers=2)
    split = json.loads(packing.run().read_text())["splits"]["train"]
    assert (split["count"], split["class_counts"]) == (11, [3, 4, 4])
    assert split["bad"] == [f"{source}/a/000.mp4"]
    assert f"skipped '{source}/a/000.mp4': it can't be decoded" in caplog.text
    assert len(split["mean"]) == 3
    shards = sorted((tmp_path / "dst").glob("*.tar"))
    before = [shard.stat().st_mtime_ns for shard in shards]
    packing.run()
    assert [shard.stat().st_mtime_ns for shard in shards] == before

    data = VideoShardsData(
        shards=f"{tmp_path}/dst/train-*.tar",
        image_size=16,
        channels=3,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        batch_size=4,
        num_workers=0,
        transform=CentreCrop(size=16),
        eval_transform=CentreCrop(size=16),
        seed=0,
        num_frames=8,
        frame_stride=2,
    )
    batches = list(data.eval_loader("train"))
    assert sum(len(batch["index"]) for batch in batches) == 11
    assert data.skipped.total == 0
