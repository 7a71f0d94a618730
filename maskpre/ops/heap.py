"""How the C library keeps memory that tensors on the CPU have freed."""

import ctypes
import sys

# Names of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have the C library reuse large freed blocks instead of giving them back; whether it can.

    By default glibc maps blocks of more than 32 MiB anew each time, and the kernel fills every page of them
    with zeros when it is first touched: for feature maps that live for one layer this costs more than many
    layers do. The process stays as large as it was at its largest. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, -1))
