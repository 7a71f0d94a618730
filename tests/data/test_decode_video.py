import io

import av
import numpy as np
import pytest
import torch

from maskpre.data.decode_video import Timeline
from maskpre.data.decoders import choose_decoder, open_video, torchcodec_trouble
from maskpre.data.sources import BadSampleError
from maskpre.errors import UserError

LEVELS = 12

needs_torchcodec = pytest.mark.skipif(
    bool(torchcodec_trouble()), reason=f"needs torchcodec and FFmpeg: {torchcodec_trouble()}"
)


@pytest.fixture(params=["pyav", pytest.param("torchcodec", marks=needs_torchcodec)])
def decoder(request):
    return request.param


def opened(content, decoder="pyav", **settings):
    return open_video(
        np.frombuffer(bytearray(content), np.uint8), **({"channels": 3, "decoder": decoder} | settings)
    )


def read(content, positions, decoder="pyav", **settings):
    with opened(content, decoder, **settings) as video:
        return video.read(np.array(positions))


def numbers(frames):
    """The frame numbers that the lower right corners of a test video tell."""
    return (frames.pixels[:, 0, -2, -2] / LEVELS).round().int().tolist()


def faststart(content, tmp_path):
    """The same file with its index in front."""
    (tmp_path / "in.mp4").write_bytes(content)
    with (
        av.open(str(tmp_path / "in.mp4")) as source,
        av.open(str(tmp_path / "out.mp4"), "w", options={"movflags": "+faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return (tmp_path / "out.mp4").read_bytes()


@pytest.mark.parametrize("access", ["seek", "sequential"])
@pytest.mark.parametrize(
    "options", [{"bf": "0"}, {"bf": "3", "b-pyramid": "normal"}], ids=["no-b-frames", "b-frames"]
)
def test_frames_have_exact_numbers(video, decoder, access, options):
    content = video(options=options, gop=7)
    for positions in ([0, 1, 2], [3, 7, 11, 19], [18, 4, 4, 9], [13]):
        frames = read(content, positions, decoder, access=access)
        assert numbers(frames) == positions
        assert (frames.pixels.dtype, frames.pixels.shape[1:], frames.rotation) == (
            torch.uint8,
            (3, 24, 32),
            0,
        )


@pytest.mark.parametrize(
    ("container", "codec"),
    [("avi", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx-vp9"), ("mpegts", "libx264")],
)
def test_other_containers(video, container, codec):
    content = video(container=container, codec=codec, options={"bf": "0"} if codec == "mpeg4" else {})
    with opened(content) as file:
        assert len(file) == 20
        assert numbers(file.read(np.array([12, 3, 19]))) == [12, 3, 19]


def test_grey(video, decoder):
    frames = read(video(), [5], decoder, channels=1)
    assert frames.pixels.shape == (1, 1, 24, 32)
    assert int(frames.pixels[0, 0, -2, -2]) == pytest.approx(5 * LEVELS, abs=10)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_comes_upright(video, decoder, rotation):
    frames = read(video(rotation=rotation), [0], decoder)
    assert frames.rotation % 360 == rotation % 360
    plain = read(video(), [0], decoder).pixels
    turned = plain.rot90(rotation // 90, dims=(2, 3))
    assert (frames.pixels.int() - turned.int()).abs().max() <= 2


def test_no_quarter_turn(video):
    with pytest.raises(BadSampleError, match=r"is rotated by (29|30) degrees, which is no quarter turn"):
        read(video(rotation=30), [0])


@pytest.mark.parametrize(("content", "message"), [(b"some text " * 99, "can't be decoded: Invalid data")])
def test_what_is_no_video(content, message):
    with pytest.raises(BadSampleError, match=message):
        opened(content)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("wav", "pcm_s16le")])
def test_sound_alone(container, codec):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        file.mux(stream.encode(silence))
        file.mux(stream.encode(None))
    with pytest.raises(BadSampleError, match="holds no video, but audio"):
        opened(buffer.getvalue())


def test_a_file_cut_off_before_its_index(video):
    content = video()
    with pytest.raises(BadSampleError, match="can't be decoded: Invalid data"):
        opened(content[: len(content) // 2])


def test_a_file_cut_off_after_its_index(video, tmp_path):
    content = faststart(video(), tmp_path)
    assert numbers(read(content, [19])) == [19]
    with pytest.raises(BadSampleError, match=r"is cut off: \d+ of 20 frames are there"):
        opened(content[:-30])


def test_a_file_damaged_inside(video, tmp_path, decoder):
    generator = np.random.default_rng(0)
    content = bytearray(faststart(video(options={"crf": "0"}), tmp_path))
    start = content.index(b"mdat") + 700
    content[start:] = generator.integers(0, 256, len(content) - start, dtype=np.uint8).tobytes()
    with pytest.raises(BadSampleError, match=r"can't be decoded|has a damaged frame"):
        read(content, range(20), decoder)


def test_a_steady_rate_forgives_single_gaps():
    steady = np.arange(100) * 512
    assert Timeline(steady, steady == 0).is_steady
    rounded = (np.arange(100) * 1000 / 29.97).astype(np.int64)
    assert Timeline(rounded, rounded == 0).is_steady
    dropped = np.delete(steady, [17, 60])
    assert Timeline(dropped, dropped == 0).is_steady
    jumping = np.cumsum(np.tile([10, 10, 40], 33))
    assert not Timeline(jumping, jumping == 10).is_steady
    assert Timeline(steady[:1], steady[:1] == 0).is_steady


def test_the_choice_is_logged_once(caplog):
    choose_decoder.cache_clear()
    with caplog.at_level("INFO", logger="maskpre"):
        assert {choose_decoder("pyav") for _ in range(3)} == {"pyav"}
    assert caplog.text.count("video is decoded by pyav") == 1


def test_without_torchcodec_pyav_decodes_and_says_why(monkeypatch, caplog):
    choose_decoder.cache_clear()
    monkeypatch.setattr("maskpre.data.decoders.torchcodec_trouble", lambda: "torchcodec is not installed")
    with caplog.at_level("INFO", logger="maskpre"):
        assert choose_decoder("auto") == "pyav"
    assert "video is decoded by pyav (torchcodec is not installed)" in caplog.text
    with pytest.raises(UserError, match=r"decoder=torchcodec does not work here: .*not installed; install"):
        choose_decoder("torchcodec")
    choose_decoder.cache_clear()
