"""Freed memory is used again without new pages."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from maskpre.ops.heap import keep_freed_memory

if not keep_freed_memory():
    sys.exit(3)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        bytearray(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_large_blocks_are_not_mapped_anew() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("not glibc: what happens to freed memory is the C library's business")
    # Four blocks of 64 MiB, one after another, in pages of 4 KiB.
    assert int(done.stdout) < 65536 / 100
