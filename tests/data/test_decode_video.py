import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from maskpre.data.decoders import choose_decoder, open_video, torchcodec_trouble
from maskpre.data.sources import BadSampleError
from maskpre.errors import UserError

LEVELS = 12
B_FRAMES = {"bf": "3", "b-adapt": "0", "b-pyramid": "normal", "sc_threshold": "0"}

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
    "options",
    [{"bf": "0"}, B_FRAMES],
    ids=["no-b-frames", "b-frames"],
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


def moving(container, codec, options):
    """30 frames of a moving texture, with few key frames: what lacks its references shows it."""
    texture = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    texture = np.kron(texture, np.ones((4, 4, 1), np.uint8))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.pix_fmt, stream.height, stream.width, stream.gop_size = "yuv420p", 48, 64, 10
        for number in range(30):
            pixels = np.ascontiguousarray(texture[number : number + 48, 3 * number : 3 * number + 64])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
    return buffer.getvalue()


STEADY_GOP = {"sc_threshold": "1000000000"}


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mpegts", "mpeg4", {"bf": "2", "qmax": "3"} | STEADY_GOP),
        ("mpegts", "mpeg2video", {"bf": "2"} | STEADY_GOP),
        ("mpegts", "libx264", B_FRAMES),
        ("avi", "mpeg4", {"bf": "2"} | STEADY_GOP),
        ("avi", "libx264", B_FRAMES),
        ("matroska", "libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    ],
)
def test_seeking_gives_the_frames_that_decoding_all_gives(container, codec, options, decoder):
    content = moving(container, codec, options)
    expected = read(content, range(30), access="sequential").pixels.int()
    assert len(expected) == 30
    for number in range(30):
        pixels = read(content, [number], decoder).pixels.int()
        assert (expected - pixels).abs().float().mean(dim=(1, 2, 3)).argmin() == number


@pytest.mark.parametrize("access", ["seek", "sequential"])
def test_avi_files_of_h264_are_read_as_they_are_shown(video, decoder, access):
    content = video(container="avi", options=B_FRAMES, gop=7)
    for positions in (list(range(20)), [0, 1, 2, 3], [9, 3, 3, 17]):
        assert numbers(read(content, positions, decoder, access=access)) == positions
    with opened(content) as file:
        assert [(frame.to_ndarray(format="gray")[-2, -2] + 6) // LEVELS for frame in file.frames()] == list(
            range(20)
        )


@pytest.mark.parametrize("access", ["seek", "sequential"])
def test_packed_b_frames_are_read_as_they_are_shown(decoder, access):
    # By Xvid, which PyAV doesn't bring; made of the frames that `video` has.
    content = (Path(__file__).parent / "files/packed_b_frames.avi").read_bytes()
    for positions in (list(range(18)), [9, 3, 3, 17], [4]):
        assert numbers(read(content, positions, decoder, access=access)) == positions


def trimmed(content, *, milliseconds, first):
    """The same mp4 file with an edit list that shows so many from frame `first` on."""
    content = bytearray(content)
    place = content.index(b"elst") + 12
    _, start = struct.unpack_from(">Ii", content, place)
    with av.open(io.BytesIO(content)) as file:
        (frame,) = {1 / file.streams.video[0].average_rate / file.streams.video[0].time_base}
    struct.pack_into(">Ii", content, place, milliseconds, start + first * int(frame))
    return bytes(content)


@pytest.mark.parametrize("access", ["seek", "sequential"])
@pytest.mark.parametrize("first", [0, 7, 9])
def test_edit_lists_are_kept_to(video, decoder, access, first):
    whole = video(options=B_FRAMES, gop=7)
    content = trimmed(whole, milliseconds=1000, first=first)
    with opened(content) as file:
        assert len(file) == 8
    for positions in ([0, 1, 2, 3], [5], [4, 7]):
        frames = read(content, positions, decoder, access=access)
        assert numbers(frames) == [first + position for position in positions]


def test_a_trimmed_file_that_is_cut_off(video, tmp_path):
    content = trimmed(faststart(video(options={"bf": "0"}), tmp_path), milliseconds=1500, first=8)
    with opened(content) as file:
        assert len(file) == 12
    with pytest.raises(BadSampleError, match=r"is cut off: \d+ of 12 frames are there"):
        opened(content[:-30])


def with_dropped_frames():
    """An AVI file of 20 frames and three that were dropped behind the ninth."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as file:
        stream = file.add_stream("mpeg4", rate=8, options={"bf": "0"})
        stream.pix_fmt, stream.height, stream.width, stream.gop_size = "yuv420p", 24, 32, 5
        packets = []
        for number in range(20):
            pixels = np.full((24, 32, 3), LEVELS * number, np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        for number, packet in enumerate(packets + stream.encode(None)):
            packet.pts = packet.dts = number + 3 * (number > 8)
            file.mux(packet)
    return buffer.getvalue()


def test_dropped_frames_are_not_missed(decoder):
    content = with_dropped_frames()
    with opened(content, decoder) as file:
        assert len(file) == 20
        assert file.timeline.ticks.tolist() == [*range(9), *range(12, 23)]
        assert numbers(file.read(np.array([3, 8, 9, 19]))) == [3, 8, 9, 19]
    for cut in (content.index(b"idx1") - 20, len(content) - 400):
        with pytest.raises(BadSampleError, match=r"is cut off: \d+ of 23 frames are there"):
            opened(content[:cut])


def of_two_sizes(container):
    """Ten frames of 96 x 64 pixels and ten of 64 x 48."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream("libx264", rate=8)
        stream.pix_fmt, stream.height, stream.width = "yuv420p", 64, 96
        for start, height, width in ((0, 64, 96), (10, 48, 64)):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.pix_fmt, encoder.height, encoder.width = "yuv420p", height, width
            encoder.time_base, encoder.options = Fraction(1, 8), {"bf": "0"}
            packets = []
            for number in range(start, start + 10):
                pixels = np.full((height, width, 3), LEVELS * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 8)
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode(None):
                packet.stream = stream
                file.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("container", ["mpegts", "matroska"])
def test_a_change_of_size_is_named(container):
    content = of_two_sizes(container)
    assert read(content, [3, 9]).pixels.shape == (2, 3, 64, 96)
    message = "changes its size from 96 x 64 to 64 x 48 pixels"
    with pytest.raises(BadSampleError, match=message):
        read(content, [8, 9, 10, 11])
    with opened(content) as file, pytest.raises(BadSampleError, match=message):
        list(file.frames())


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


def changed(content, tmp_path, change):
    """The same file, whose packets `change` went over."""
    (tmp_path / "in").write_bytes(content)
    with (
        av.open(str(tmp_path / "in")) as source,
        av.open(str(tmp_path / "out.mkv"), "w") as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet = change(number, packet)
                packet.stream = stream
                target.mux(packet)
    return (tmp_path / "out.mkv").read_bytes()


def test_times_in_the_order_of_decoding_are_refused(video, tmp_path):
    def retimed(number, packet):
        packet.pts = packet.dts
        return packet

    content = changed(video(options=B_FRAMES, gop=7), tmp_path, retimed)
    with pytest.raises(BadSampleError, match="has times in another order than its frames are shown"):
        read(content, range(20))


def test_damage_before_the_wanted_frames_is_found(tmp_path):
    def damaged(number, packet):
        if number != 13:
            return packet
        content = bytearray(bytes(packet))
        content[len(content) // 3 :] = np.random.default_rng(0).bytes(len(content) - len(content) // 3)
        replaced = av.Packet(bytes(content))
        replaced.pts, replaced.dts, replaced.time_base = packet.pts, packet.dts, packet.time_base
        return replaced

    content = changed(moving("mp4", "libx264", {"bf": "0", "crf": "10"}), tmp_path, damaged)
    assert len(read(content, [11, 12]).pixels) == 2
    for position in (13, 16, 19):
        with pytest.raises(BadSampleError, match=r"has a damaged frame, number 13|can't be decoded"):
            read(content, [position])


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
