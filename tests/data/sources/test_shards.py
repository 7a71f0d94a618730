import logging

import pytest

from maskpre.data.sources import BadSampleError, ShardSource
from maskpre.data.sources.shards import expand_shards, is_remote
from maskpre.errors import UserError


def test_braces_and_globs_are_expanded(shards):
    expected = [shards / f"train-00000{number}.tar" for number in range(4)]
    assert expand_shards(f"{shards}/train-{{000000..000003}}.tar") == expected
    assert expand_shards(f"{shards}/train-*.tar") == expected
    assert expand_shards(f"{expected[2]}::{shards}/train-*1.tar") == [expected[2], expected[1]]
    assert expand_shards("~/x.tar")[0].is_absolute()
    with pytest.raises(UserError, match="no shard matches"):
        expand_shards(f"{shards}/val-*.tar")


@pytest.mark.parametrize(
    ("pattern", "remote"),
    [("pipe:cat x.tar", True), ("s3://bucket/{0..3}.tar", True), ("/data/{0..3}.tar", False)],
)
def test_remote_patterns_are_told_apart(pattern, remote):
    assert is_remote(pattern) is remote


def test_reads_any_sample_at_random(shards, jpeg, tmp_path):
    source = ShardSource(shards=f"{shards}/train-{{000000..000003}}.tar", cache_dir=tmp_path)
    assert len(source) == 40
    assert source.classes == ("0", "1", "2", "3")
    for index in (39, 0, 17, 10, 9):
        sample = source.read(index)
        assert sample.data.tobytes() == jpeg(index)
        assert sample.label == index % 4
        assert sample.key == f"{shards}/train-00000{index // 10}.tar:{index:05d}"


def test_more_shards_than_descriptors(tmp_path, make_shard, monkeypatch):
    monkeypatch.setattr("maskpre.data.sources.shards._OPEN_FILES", 2)
    for number in range(5):
        make_shard(tmp_path / f"{number}.tar", {"1.jpg": f"picture {number}".encode()})
    source = ShardSource(shards=f"{tmp_path}/*.tar", cache_dir=tmp_path)
    for index in (0, 4, 2, 0, 1, 3, 4):
        assert source.read(index).data.tobytes() == f"picture {index}".encode()


def test_class_names_come_from_the_description(tmp_path, make_shard):
    make_shard(tmp_path / "0.tar", {"1.jpg": b"x", "1.cls": b"1"})
    (tmp_path / "dataset.json").write_text('{"classes": ["cat", "dog"]}')
    assert ShardSource(shards=f"{tmp_path}/0.tar", cache_dir=tmp_path).classes == ("cat", "dog")
    with pytest.raises(UserError, match="has label 1, but there are 1 classes"):
        ShardSource(shards=f"{tmp_path}/0.tar", cache_dir=tmp_path, classes=("cat",))


def test_missing_and_broken_shards_are_named_and_counted(shards, tmp_path, make_shard, caplog):
    broken = make_shard(tmp_path / "broken.tar", {f"{n}.jpg": bytes(600) for n in range(3)})
    broken.write_bytes(broken.read_bytes()[:2000])
    pattern = f"{shards}/train-{{000000..000005}}.tar::{broken}"
    with caplog.at_level(logging.WARNING):
        source = ShardSource(shards=pattern, cache_dir=tmp_path)
    assert len(source) == 41
    assert f"shard '{shards}/train-000004.tar' does not exist (left out)" in caplog.text
    assert f"shard '{broken}' is broken after 1 samples" in caplog.text
    assert "3 of 7 shards are missing or broken" in caplog.text
    named = r"3 of 7 shards have problems: shard '.*train-000004.tar' does not exist"
    with pytest.raises(UserError, match=named):
        ShardSource(shards=pattern, cache_dir=tmp_path, on_error="raise")


def test_nothing_to_read_is_an_error(tmp_path, make_shard):
    with pytest.raises(UserError, match=r"none of the 3 shards of '.*' exists, e.g. '.*/0.tar'"):
        ShardSource(shards=f"{tmp_path}/{{0..2}}.tar", cache_dir=tmp_path)
    make_shard(tmp_path / "0.tar", {"1.txt": b"x"})
    with pytest.raises(UserError, match="hold no picture"):
        ShardSource(shards=f"{tmp_path}/0.tar", cache_dir=tmp_path)


def test_a_shard_that_vanishes_or_shrinks_after_the_start_is_a_bad_sample(tmp_path, make_shard):
    paths = [make_shard(tmp_path / f"{n}.tar", {"1.jpg": bytes(2000)}) for n in range(2)]
    source = ShardSource(shards=f"{tmp_path}/*.tar", cache_dir=tmp_path)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    with pytest.raises(BadSampleError, match="can't be read: No such file"):
        source.read(0)
    with pytest.raises(BadSampleError, match="is cut off: 488 of 2000 bytes are there"):
        source.read(1)
