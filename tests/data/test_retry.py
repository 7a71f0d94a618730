import errno
import logging
import os

import pytest

from maskpre.data.retry import Backoff
from maskpre.data.sources import BadSampleError, ShardSource, base


def failing(*numbers):
    """A function that raises these errors in turn, then gives 7."""
    left = list(numbers)

    def read():
        if left:
            raise OSError(left.pop(0), "no answer")
        return 7

    return read


def test_what_passes_is_tried_again_after_ever_longer_pauses(monkeypatch, caplog):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with caplog.at_level(logging.WARNING):
        assert Backoff(retries=3, seconds=0.5).read(failing(errno.EIO, errno.ESTALE), what="x.tar") == 7
    assert pauses == [0.5, 1.0]
    assert "x.tar: no answer; trying again in 0.5 s" in caplog.text


@pytest.mark.parametrize(("errors", "left"), [([errno.ENOENT], 0), ([errno.EIO] * 3, 0)])
def test_what_does_not_pass_is_raised(errors, left):
    with pytest.raises(OSError, match="no answer"):
        Backoff(retries=2, seconds=0).read(failing(*errors), what="x.tar")


def test_a_shard_is_opened_anew_after_an_error(shards, tmp_path, monkeypatch):
    source = ShardSource(shards=f"{shards}/train-*.tar", cache_dir=tmp_path)
    monkeypatch.setattr(base, "BACKOFF", Backoff(retries=1, seconds=0))
    first = source.read(0).data
    preadv, failures = os.preadv, [errno.ESTALE]

    def stale(descriptor, buffers, offset):
        if failures:
            raise OSError(failures.pop(), "Stale file handle")
        return preadv(descriptor, buffers, offset)

    opened = []
    monkeypatch.setattr(os, "preadv", stale)
    monkeypatch.setattr(
        os, "open", lambda path, flags, real=os.open: opened.append(path) or real(path, flags)
    )
    assert (source.read(0).data == first).all()
    assert opened == [shards / "train-000000.tar"]
    failures += [errno.ESTALE] * 2
    with pytest.raises(BadSampleError, match="can't be read: Stale file handle"):
        source.read(0)
