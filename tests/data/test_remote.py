import logging
from itertools import islice

import pytest
import torch

from maskpre.data import RemoteData
from maskpre.data.remote_shards import cache_name
from maskpre.data.transforms import CentreCrop, RandomResizedCrop
from maskpre.errors import UserError


def remote(shards, **changes):
    settings = {
        "shards": shards,
        "image_size": 16,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "batch_size": 4,
        "num_workers": 0,
        "transform": RandomResizedCrop(size=16),
        "eval_transform": CentreCrop(size=16),
        "seed": 1,
        "retry_seconds": 0.0,
    }
    return RemoteData(**(settings | changes))


def test_a_pipe_gives_every_sample_once_per_pass(shards):
    data = remote(f"pipe:cat {shards}/train-{{000000..000003}}.tar")
    loader = data.train_loader(num_steps=20)
    batches = list(islice(loader, 20))
    assert len(loader) == 20
    assert [batch["epoch"].unique().tolist() for batch in batches] == [[0]] * 10 + [[1]] * 10
    for epoch in (batches[:10], batches[10:]):
        assert len(torch.cat([batch["index"] for batch in epoch]).unique()) == 40
    batch = batches[0]
    assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (4, 3, 16, 16))
    assert {batch[name].dtype for name in ("label", "index", "epoch")} == {torch.int64}
    again = next(iter(data.train_loader(num_steps=20)))
    assert all(torch.equal(again[name], batch[name]) for name in batch)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_read_different_shards(shards, workers):
    data = remote(f"pipe:cat {shards}/train-{{000000..000003}}.tar", num_workers=workers)
    seen = []
    for rank in range(2):
        loader = data.train_loader(num_steps=10, rank=rank, world=2)
        seen.append({i for batch in islice(loader, 10) for i in batch["index"].tolist()})
    assert seen[0].isdisjoint(seen[1])
    assert len(seen[0] | seen[1]) == 40


def test_a_resume_is_announced_as_not_exact(shards, caplog):
    data = remote(f"pipe:cat {shards}/train-{{000000..000003}}.tar")
    with caplog.at_level(logging.WARNING):
        resumed = next(iter(data.train_loader(num_steps=20, start_step=5)))
    assert "the resume is not exact; step 5 starts a new pass" in caplog.text
    assert not torch.equal(resumed["index"], next(iter(data.train_loader(num_steps=20)))["index"])


def test_broken_shards_and_samples_are_named(shards, tmp_path, make_shard, caplog):
    make_shard(tmp_path / "bad.tar", {"9.jpg": b"text", "9.cls": b"1"})
    pattern = f"pipe:cat {shards}/train-000000.tar::pipe:cat {tmp_path}/bad.tar::pipe:cat {tmp_path}/no.tar"
    with caplog.at_level(logging.WARNING):
        batches = list(islice(remote(pattern, batch_size=5).train_loader(num_steps=4), 4))
    assert [len(batch["index"]) for batch in batches] == [5] * 4
    assert f"skipped 'pipe:cat {tmp_path}/bad.tar:9': it is no picture of a known format" in caplog.text
    assert f"{tmp_path}/no.tar'" in caplog.text


def test_raising_and_all_bad_streams_end_the_run(tmp_path, make_shard):
    make_shard(tmp_path / "bad.tar", {f"{number}.jpg": b"text" for number in range(3)})
    pattern = f"pipe:cat {tmp_path}/bad.tar"
    with pytest.raises(UserError, match=r"1 samples in a row can't be read \(data.on_error=raise\)"):
        next(iter(remote(pattern, on_error="raise").train_loader(num_steps=4)))
    with pytest.raises(UserError, match="a pass over 1 shards gave no sample"):
        next(iter(remote(pattern).train_loader(num_steps=4)))


def test_too_few_shards_name_the_numbers(shards):
    data = remote(f"pipe:cat {shards}/train-{{000000..000003}}.tar", num_workers=3)
    with pytest.raises(UserError, match=r"4 shards can't feed 2 ranks x 3 workers, .* data.num_workers to 2"):
        data.train_loader(num_steps=1, world=2)


def test_what_needs_an_index_is_refused():
    data = remote("pipe:cat x.tar")
    assert not data.has_labels
    with pytest.raises(UserError, match=r"is a remote stream of unknown length .* set max_steps"):
        _ = data.steps_per_epoch


def test_settings_without_effect_are_announced(caplog):
    remote("pipe:cat x.tar", cache="ram")
    assert "data.cache=ram and data.shuffle=full have no effect on remote shards" in caplog.text


@pytest.fixture
def flaky(tmp_path, shards):
    """A command that breaks off in the middle of a shard at its first `failures` calls."""

    def make(failures):
        calls, command = tmp_path / "calls", tmp_path / "get"
        calls.touch()
        command.write_text(
            f'#!/bin/sh\necho x >> {calls}\n[ $(wc -l < {calls}) -gt {failures} ] && exec cat "$1"\n'
            'head -c 12000 "$1"; exit 1\n'
        )
        command.chmod(0o755)
        return f"pipe:{command} {shards}/train-000000.tar", calls

    return make


@pytest.mark.parametrize("cached", [False, True])
def test_a_shard_that_breaks_off_is_fetched_again_and_gives_every_sample_once(
    flaky, tmp_path, caplog, cached
):
    pattern, calls = flaky(2)
    options = {"shard_cache": str(tmp_path / "cache")} if cached else {}
    data = remote(pattern, batch_size=5, shuffle_buffer=0, **options)
    batches = list(islice(data.train_loader(num_steps=4), 4))
    for epoch in (batches[:2], batches[2:]):
        assert len(torch.cat([batch["index"] for batch in epoch]).unique()) == 10
    assert data.skipped.total == 0
    assert f"shard '{pattern}'" in caplog.text
    assert caplog.text.count("trying again in 0 s") == 2
    # The second pass finds the shard in the cache; streaming fetches it again.
    assert len(calls.read_text().splitlines()) == (3 if cached else 4)


@pytest.mark.parametrize("cached", [False, True])
def test_a_shard_that_stays_unreadable_is_left_out_or_fatal(flaky, shards, tmp_path, caplog, cached):
    broken, _ = flaky(10**6)
    pattern = f"{broken}::pipe:cat {shards}/train-000001.tar"
    options = {"shard_cache": str(tmp_path / "cache")} if cached else {}
    batches = list(islice(remote(pattern, batch_size=5, retries=1, **options).train_loader(num_steps=2), 2))
    assert [len(batch["index"]) for batch in batches] == [5, 5]
    assert f"skipped '{broken}'" in caplog.text
    with pytest.raises(UserError, match=r"can't be read \(data.on_error=raise\), e.g. 'pipe:.*/get"):
        list(remote(pattern, retries=1, on_error="raise", **options).train_loader(num_steps=40))
    if cached:
        assert [path.name[17:] for path in (tmp_path / "cache").iterdir()] == ["train-000001.tar"]


def test_a_full_cache_makes_room(shards, tmp_path):
    size = (shards / "train-000000.tar").stat().st_size
    gigabytes = 1.5 * size / 10**9
    data = remote(
        f"pipe:cat {shards}/train-{{000000..000003}}.tar",
        shard_cache=str(tmp_path / "cache"),
        shard_cache_gb=gigabytes,
    )
    assert len(list(islice(data.train_loader(num_steps=10), 10))) == 10
    assert len(list((tmp_path / "cache").iterdir())) <= 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"retry_seconds": -1}, "must be at least 0 seconds, got -1"),
        ({"shard_cache_gb": 0}, "data.shard_cache_gb must be greater than 0, got 0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        remote("pipe:cat x.tar", **changes)


def test_shards_of_one_name_in_different_places_are_kept_apart():
    names = {cache_name(f"https://host/{folder}/train-0.tar") for folder in "ab"}
    assert len(names) == 2
    assert all(name.endswith("-train-0.tar") for name in names)
    assert cache_name("pipe:aws s3 cp s3://b/x/train-1.tar -").endswith("-train-1.tar")
