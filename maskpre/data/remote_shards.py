"""Fetching shards from elsewhere, again if that fails, and keeping them."""

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset
from webdataset.cache import FileCache

from maskpre.data.retry import Backoff

log = logging.getLogger(__name__)


class RemoteShards:
    """Samples of shards behind pipes and URLs, as webdataset opens them (`pipe:`, https, s3, gs, ...).

    Whatever interrupts a shard, it is fetched again, after ever longer pauses, and goes on behind the last
    sample it gave.

    Args:
        backoff: how often, and after which pauses.
        cache: folder in which whole shards are kept; None streams them.
        cache_bytes: what the folder may hold; the oldest shards make room.
    """

    def __init__(self, *, backoff: Backoff, cache: Path | None = None, cache_bytes: int = 10**12) -> None:
        self.backoff = backoff
        self.cache = cache
        self.cache_bytes = cache_bytes

    def samples(self, url: str) -> Iterator[dict[str, Any]]:
        """The shard's samples in order; raises the last error if it can't be had as a whole."""
        given = 0
        for wait in (*self.backoff.waits(), None):
            try:
                for number, sample in enumerate(self._attempt(url)):
                    if number >= given:
                        given += 1
                        yield sample
            except Exception as error:
                # Whatever a command, a library or a damaged file may raise.
                if wait is None:
                    raise
                log.warning("shard '%s': %s; trying again in %g s", url, reason(error), wait)
                time.sleep(wait)
            else:
                return

    def _attempt(self, url: str) -> Iterator[dict[str, Any]]:
        source = url if self.cache is None else self._fetched(url, self.cache)
        for sample in webdataset.tarfile_to_samples()([{"url": source}]):
            yield {**sample, "__url__": url}

    def _fetched(self, url: str, cache: Path) -> str:
        files = FileCache(
            str(cache), url_to_name=cache_name, cache_size=self.cache_bytes, cache_cleanup_interval=30
        )
        try:
            return str(files.get_file(url))
        except BaseException:
            for part in cache.glob(f"{cache_name(url)}.temp*"):
                part.unlink(missing_ok=True)
            raise


def cache_name(url: str) -> str:
    """File name of a fetched shard: two shards of the same name in different places differ."""
    digest = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    readable = re.sub(r"[^\w.-]", "_", url.rstrip("/ -").rpartition("/")[2])[-60:]
    return f"{digest}-{readable}"


def reason(error: Exception) -> str:
    """Why a shard could not be read, in a few words."""
    return str(getattr(error, "strerror", None) or (error.args[0] if error.args else type(error).__name__))
