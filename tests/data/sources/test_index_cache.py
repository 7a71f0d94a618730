import errno
import multiprocessing
from pathlib import Path

import pytest

from maskpre.data.retry import Backoff
from maskpre.data.sources import VIDEOS, Media, index_cache
from maskpre.data.sources.index_cache import IndexCache
from maskpre.data.sources.tar_index import ShardIndex, scan_shard


def content(index: ShardIndex) -> list[object]:
    arrays = (index.offsets.tolist(), index.sizes.tolist(), index.labels.tolist())
    return [list(index.keys), *arrays, index.problem]


@pytest.fixture
def shard(tmp_path, make_shard) -> Path:
    return make_shard(tmp_path / "data" / "s.tar", {f"{n}.jpg": bytes(n + 1) for n in range(5)})


def test_an_index_is_built_once_and_read_back_equal(shard, tmp_path, monkeypatch):
    cache = IndexCache(tmp_path / "cache")
    built = cache.load_all([shard])[0]
    monkeypatch.setattr(index_cache, "scan_shard", None)
    assert content(cache.load_all([shard])[0]) == content(built)
    assert (shard.parent / ".maskpre-index" / "s.tar.npz").is_file()
    assert not (tmp_path / "cache").exists()


def test_pictures_and_videos_of_one_shard_have_an_index_each(tmp_path, make_shard):
    members = {"1.jpg": b"picture", "1.mp4": b"a video", "1.cls": b"3", "2.mp4": b"another"}
    shard = make_shard(tmp_path / "s.tar", members)
    for _ in range(2):
        pictures = IndexCache(tmp_path / "cache").load_all([shard])[0]
        videos = IndexCache(tmp_path / "cache", VIDEOS).load_all([shard])[0]
        assert (list(pictures.keys), pictures.sizes.tolist(), pictures.without_file) == (["1"], [7], 1)
        assert (list(videos.keys), videos.labels.tolist(), videos.without_file) == (["1", "2"], [3, -1], 0)


def test_a_changed_shard_is_indexed_anew(shard, tmp_path, make_shard):
    cache = IndexCache(tmp_path / "cache")
    assert len(cache.load_all([shard])[0].keys) == 5
    make_shard(shard, {"only.jpg": b"1"})
    assert cache.load(shard) is None
    assert len(cache.load_all([shard])[0].keys) == 1


def test_a_damaged_index_file_is_replaced(shard, tmp_path):
    cache = IndexCache(tmp_path / "cache")
    built = cache.load_all([shard])[0]
    file = shard.parent / ".maskpre-index" / "s.tar.npz"
    for damage in (b"", b"junk", file.read_bytes()[:300]):
        file.write_bytes(damage)
        assert cache.load(shard) is None
        assert content(cache.load_all([shard])[0]) == content(built)


def test_a_folder_that_cannot_be_written_uses_the_cache(shard, tmp_path):
    (shard.parent / ".maskpre-index").write_text("a file where the folder would be")
    cache = IndexCache(tmp_path / "cache")
    built = cache.load_all([shard])[0]
    assert len(list((tmp_path / "cache").rglob("s.tar.npz"))) == 1
    loaded = cache.load(shard)
    assert loaded is not None
    assert content(loaded) == content(built)


def build(folder: Path, barrier: object, results: object) -> None:
    barrier.wait()
    indices = IndexCache(folder / "cache").load_all(sorted(folder.glob("*.tar")))
    results.put([content(index) for index in indices])


def test_of_processes_that_start_at_once_one_indexes(tmp_path, make_shard, monkeypatch):
    """As those of one host, and those of several that share the disk."""
    for number in range(4):
        make_shard(tmp_path / f"{number}.tar", {f"{n}.jpg": bytes(n + number) for n in range(200)})

    def scan(shard: Path, media: Media) -> ShardIndex:
        with (tmp_path / "scans").open("a") as file:
            file.write(f"{shard.name}\n")
        return scan_shard(shard, media)

    monkeypatch.setattr(index_cache, "scan_shard", scan)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=build, args=(tmp_path, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == found[2]
    assert [len(keys) for keys, *_ in found[0]] == [200] * 4
    assert sorted((tmp_path / "scans").read_text().split()) == [f"{number}.tar" for number in range(4)]
    assert len(list((tmp_path / ".maskpre-index").glob("*.npz"))) == 4


def test_a_shard_that_cannot_be_opened_is_a_problem_not_a_crash(shard, tmp_path, monkeypatch):
    calls = []

    def scan(path: Path, media: Media) -> ShardIndex:
        calls.append(path)
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(index_cache, "scan_shard", scan)
    monkeypatch.setattr(index_cache, "BACKOFF", Backoff(retries=2, seconds=0))
    (index,) = IndexCache(tmp_path / "cache").load_all([shard])
    assert content(index) == [[], [], [], [], "it can't be read: Stale file handle"]
    assert len(calls) == 3
    assert not list(tmp_path.rglob("*.npz"))
