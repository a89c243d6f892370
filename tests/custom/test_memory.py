from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from custom.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
np.ones(2**24)  # 128 MB, taken and freed once before counting
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's allocator")
def test_freed_blocks_are_used_again_without_new_pages():
    def page_faults(keep: bool) -> int:
        program = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        return int(subprocess.run(program, capture_output=True, text=True, check=True).stdout)

    assert page_faults(keep=True) < page_faults(keep=False) / 10
