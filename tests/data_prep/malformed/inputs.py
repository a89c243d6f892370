"""Building blocks of the malformed cases.

Every entry of a table (name, function that adds something bad to a folder with one good case, kind, pattern of what is
reported): ``SKIPPED`` entries are refused, ``LEFT_OUT`` ones have only masks that are too small, ``REPAIRED`` ones are
prepared, and ``IGNORED`` ones are no input.
"""

import numpy as np

RNG = np.random.default_rng(0)
SKIPPED, LEFT_OUT, REPAIRED, IGNORED = "skipped", "left out", "repaired", "ignored"

GREY = RNG.integers(0, 256, (32, 48), np.uint8)
LABEL = np.zeros((32, 48), np.uint8)
LABEL[4:14, 6:16] = 1
VOLUME = RNG.integers(0, 900, (12, 10, 6)).astype(np.int16)
VOLUME_LABEL = np.zeros((12, 10, 6), np.uint8)
VOLUME_LABEL[2:8, 2:8, 1:5] = 1
AFFINE = np.diag((2.0, 2.0, 3.0, 1.0))


def cut(path, size=None):
    path.write_bytes(path.read_bytes()[: size or path.stat().st_size // 2])


def then(add, *changes):
    def run(root):
        path = add(root)
        for change in changes:
            change(path)

    return run
