"""What the decoders of every format share: one kind of error, size limits, and label maps of integer ids."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.limits import BYTES, DEFLATE_RATIO, PIXELS, SLICES


@contextmanager
def decoding(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an :class:`InputError`.

    Corrupt bytes can make a decoder fail anywhere (EOFError, zlib.error, SyntaxError, struct.error ...), so every
    Exception counts as "the file cannot be read".
    """
    if not os.path.isfile(path):  # also False for what cannot be a path
        raise InputError(path, "file", "no such file", f"a readable {kind}")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(path, "file", f"{type(error).__name__} ({text})", f"a readable {kind}") from error


def check_size(shape: Sequence[int], path: str | Path, *, itemsize: int = 1) -> None:
    """Check the declared size of a picture or a stack before any of it is decoded.

    Args:
        shape: (Z, H, W).
        path: the file, for the error.
        itemsize: bytes of a pixel in memory, all its channels together.

    Raises:
        InputError: there are more slices, pixels in a slice, or bytes in total than ``custom.limits`` allows.
    """
    found = " x ".join(map(str, shape))
    SLICES.check(shape[0], path, "size", found=found)
    PIXELS.check(math.prod(shape[1:]), path, "size", found=found)
    BYTES.check(math.prod(shape) * itemsize, path, "size", found=found)


def check_room(size: int, path: str | Path, *, deflated: bool) -> None:
    """Check that a file is long enough for the bytes that its header declares, before memory is reserved for them.

    Raises:
        InputError: it is cut off, or the header is wrong.
    """
    room = Path(path).stat().st_size * (DEFLATE_RATIO if deflated else 1)
    if size > room:
        raise InputError(path, "size", f"{size} bytes declared", f"at most {room} in a file of this length")


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


def no_choice(path: str | Path, *, frame: int | None = None, series: str | None = None) -> None:
    """Refuse a choice that a format does not offer.

    Raises:
        InputError: a frame or a series was chosen.
    """
    if frame is not None:
        raise InputError(path, "frame", frame, "no frame: the file holds one image")
    if series is not None:
        raise InputError(path, "series", repr(series), "no series: the file is not a DICOM folder")
