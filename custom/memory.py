"""Keep freed memory in the process: on a CPU a network asks for the same large blocks again at every step."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks instead of returning them to the system.

    By default a block of some MB is mapped when taken and unmapped when freed, so that the system clears its pages at
    every layer of the network; that can take longer than the layer. The process then holds what it needed at most.

    Returns:
        Whether the allocator took the settings; False on a system without glibc, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no such function
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**28}
    return all([mallopt(key, value) == 1 for key, value in settings.items()])
