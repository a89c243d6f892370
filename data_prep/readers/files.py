"""Decode single files: pictures (PNG, JPEG, TIFF, BMP ... by Pillow) and NIfTI volumes (by nibabel)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from custom.errors import InputError

NIFTI_ENDINGS = (".nii", ".nii.gz")
_PLAIN_MODES = {"L", "RGB", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


def is_nifti(path: str | Path) -> bool:
    """Tell whether a file name ends like NIfTI."""
    return str(path).lower().endswith(NIFTI_ENDINGS)


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


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture as (1, H, W) or (1, H, W, 3).

    8-bit palette and other colour models become RGB, an alpha channel is dropped, 16 and 32 bit grey keep their
    values. An EXIF rotation is not applied, since masks are drawn on the stored pixels.

    Raises:
        InputError: the file cannot be read.
    """
    with decoding(path, "picture"), Image.open(path) as picture:
        if picture.mode not in _PLAIN_MODES:
            picture = picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")
        return np.asarray(picture)[None]  # HxW[x3] -> 1xHxW[x3]


def read_picture_label(path: str | Path) -> np.ndarray:
    """Read a label picture as (1, H, W) integers; the ids of a palette picture are its palette indices.

    Raises:
        InputError: the file cannot be read, or is a colour picture.
    """
    with decoding(path, "label picture"), Image.open(path) as picture:
        label = np.asarray(picture)
    if label.ndim != 2:
        raise InputError(path, "label", f"{label.shape[-1]} channels", "one channel of integer ids")
    return as_label(label[None], path)  # HxW -> 1xHxW


def read_nifti(path: str | Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Read a NIfTI volume in LPS orientation, transposed to (Z, H, W).

    Slices are axial; row 0 is anterior and column 0 is the patient's right.

    Returns:
        The array (Z, H, W) and its spacing (z, y, x) in mm.

    Raises:
        InputError: the file cannot be read, is not 2D or 3D, or has no usable orientation.
    """
    with decoding(path, "NIfTI file"):
        volume = nib.load(path)
        array = np.asanyarray(volume.dataobj)
        affine = volume.affine
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.size == 0:
        raise InputError(path, "shape", array.shape, "2D or 3D")
    if array.dtype.kind not in "biuf":
        raise InputError(path, "dtype", array.dtype, "integers or real numbers")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (sizes > 0).all() and abs(np.linalg.det(affine[:3, :3])) > 0):
        raise InputError(path, "affine", affine[:3, :3].tolist(), "an invertible matrix")
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
    array = nib.apply_orientation(array, turn)
    spacing = np.empty(3)
    spacing[turn[:, 0].astype(int)] = sizes
    x, y, z = (round(float(s), 6) for s in spacing)
    return np.ascontiguousarray(array.transpose(2, 1, 0)), (z, y, x)  # XxYxZ -> ZxYxX


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
