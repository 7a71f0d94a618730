import pytest

from maskpre.data.sources.tar_index import scan_shard
from maskpre.errors import UserError


def test_offsets_lead_to_the_pictures(tmp_path, make_shard):
    members = {"x/1.jpg": b"one", "x/1.cls": b"3\n", "x/1.json": b"{}", "2.PNG": b"two!", "3.txt": b"text"}
    path = make_shard(tmp_path / "s.tar", members)
    index = scan_shard(path)
    content = path.read_bytes()
    pictures = [content[o : o + s] for o, s in zip(index.offsets, index.sizes, strict=True)]
    assert pictures == [b"one", b"two!"]
    assert [index.keys[0], index.keys[1]] == ["x/1", "2"]
    assert index.labels.tolist() == [3, -1]
    assert (index.without_file, index.problem) == (1, "")


def test_only_the_plain_picture_member_counts(tmp_path, make_shard):
    index = scan_shard(make_shard(tmp_path / "s.tar", {"1.jpg": b"one", "1.depth.png": b"depth"}))
    assert index.sizes.tolist() == [3]


def test_long_names_are_read(tmp_path, make_shard):
    name = "d" * 150
    index = scan_shard(make_shard(tmp_path / "s.tar", {f"{name}.jpg": b"one"}))
    assert index.keys[0] == name


@pytest.mark.parametrize(("cut", "whole"), [(300, 1), (700, 1), (1024, 1), (1300, 2)])
def test_a_cut_off_shard_keeps_what_came_before(tmp_path, make_shard, cut, whole):
    path = make_shard(tmp_path / "s.tar", {f"{n}.jpg": bytes(600) for n in range(3)})
    path.write_bytes(path.read_bytes()[: 1536 + cut])
    index = scan_shard(path)
    assert len(index.keys) == whole
    assert any(words in index.problem for words in ("cut off", "end of data", "damaged header"))


def test_a_damaged_header_is_noticed(tmp_path, make_shard):
    path = make_shard(tmp_path / "s.tar", {f"{n}.jpg": bytes(600) for n in range(3)})
    content = bytearray(path.read_bytes())
    content[1536:1600] = b"\xaa" * 64
    path.write_bytes(content)
    index = scan_shard(path)
    assert len(index.keys) == 1
    assert index.problem == "damaged header at byte 1536"


@pytest.mark.parametrize("content", [b"", b"text that is no tar at all" * 100])
def test_what_is_no_tar_has_a_problem_and_no_samples(tmp_path, content):
    path = tmp_path / "s.tar"
    path.write_bytes(content)
    index = scan_shard(path)
    assert len(index.keys) == 0
    assert index.problem


def test_labels_must_be_numbers(tmp_path, make_shard):
    path = make_shard(tmp_path / "s.tar", {"7.jpg": b"x", "7.cls": b"dog"})
    with pytest.raises(UserError, match=r"the label of '7' is b'dog'; .cls members must hold a class number"):
        scan_shard(path)
