"""What the decoders of every format share: one kind of error, size limits, integer ids, upright pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.limits import BYTES, DEFLATE_RATIO, PIXELS, SLICES

#: The tag of EXIF and TIFF that says how a picture is stored.
ORIENTATION_TAG = 274


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
    """Check the declared size (Z, H, W) of a picture or a stack before any of it is decoded.

    ``itemsize`` is the number of bytes of a pixel in memory, all its channels together.

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
        InputError: it holds something else, or has channels, (Z, H, W, C).
    """
    if array.ndim == 4:
        raise InputError(path, "label", f"{array.shape[-1]} channels", "one channel of integer ids")
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


def upright(array: np.ndarray, orientation: object) -> tuple[np.ndarray, dict[str, Any]]:
    """Turn a stored picture, (Z, H, W) or (Z, H, W, C), according to the value of its orientation tag.

    Returns:
        The array, H and W exchanged for 5 to 8, and the note for the report. Other values than 2 to 8 change nothing,
        as in viewers, and have no note.
    """
    if orientation not in range(2, 9):
        return array, {}
    if orientation >= 5:
        array = array.swapaxes(1, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[:, ::-1]
    return np.ascontiguousarray(array), {"exif_orientation": int(orientation), "upright": True}


def no_choice(path: str | Path, *, frame: int | None = None, series: str | None = None) -> None:
    """Refuse a choice that a format does not offer.

    Raises:
        InputError: a frame or a series was chosen.
    """
    if frame is not None:
        raise InputError(path, "frame", frame, "no frame: the file holds one image")
    if series is not None:
        raise InputError(path, "series", repr(series), "no series: the file is not a DICOM folder")
