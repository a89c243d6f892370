"""Keep freed memory in the process: on a CPU a network asks for the same large blocks again at every step."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Make glibc's allocator reuse large blocks instead of returning them to the system.

    By default a block of some MB is mapped when allocated and unmapped when freed, so the system clears its pages at
    every layer of the network, which can take longer than the layer. With this setting the process keeps the most
    memory it has needed.

    Returns:
        Whether the allocator accepted the settings; False on a system without glibc, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no such function
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**28}
    return all([mallopt(key, value) == 1 for key, value in settings.items()])
