"""What the decoders of every format share: one kind of error, limits of size, and label maps of whole ids."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from custom.errors import InputError

#: Largest slice and largest volume that are decoded: a few bytes of a compressed file can declare any size.
MAX_PIXELS = 89_478_485  # where Pillow, too, begins to suspect a decompression bomb
MAX_VOXELS = 2**31


@contextmanager
def decoding(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an :class:`InputError`.

    Corrupt bytes can make a decoder trip anywhere (EOFError, zlib.error, SyntaxError, struct.error ...), so every
    Exception counts as "the file cannot be read".
    """
    if not Path(path).is_file():
        raise InputError(path, "file", "no such file", f"a readable {kind}")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(path, "file", f"{type(error).__name__} ({text})", f"a readable {kind}") from error


def check_size(shape: Sequence[int], path: str | Path) -> None:
    """Check the declared size (Z, H, W) of a picture or a stack before anything of it is decoded.

    Raises:
        InputError: a slice has more than ``MAX_PIXELS`` or all have more than ``MAX_VOXELS``.
    """
    pixels, voxels = math.prod(shape[1:]), math.prod(shape)
    if pixels > MAX_PIXELS or voxels > MAX_VOXELS:
        found = " x ".join(str(n) for n in shape)
        raise InputError(path, "size", found, f"at most {MAX_PIXELS} pixels a slice and {MAX_VOXELS} in all")


def as_label(array: np.ndarray, path: str | Path) -> np.ndarray:
    """Check that an array holds whole, non-negative ids and return it with an integer dtype.

    Raises:
        InputError: it holds something else.
    """
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise InputError(path, "label", f"dtype {array.dtype}", "integer ids")
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and (array == np.rint(array)).all()):
            raise InputError(path, "label", "fractions or NaN", "integer ids")
        array = array.astype(np.int64)
    if array.size and array.min() < 0:
        raise InputError(path, "label", f"id {array.min()}", "ids from 0 up")
    return array
