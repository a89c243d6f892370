"""NIfTI volumes, read into the canonical orientation and written back in the source's."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.openers import ImageOpener

from custom.errors import InputError
from custom.files import write_whole
from custom.images.decoding import as_label, check_room, check_size, decoding
from custom.images.geometry import Geometry
from custom.limits import BYTES

NIFTI_ENDINGS = (".nii", ".nii.gz")
#: Part of a voxel by which the corners of a label may be off: rounding of a header's quaternion, not another place.
GRID_TOLERANCE = 0.1
_COMPRESSION = 6


def is_nifti(path: str | Path) -> bool:
    """Tell whether a file name ends like NIfTI."""
    return str(path).lower().endswith(NIFTI_ENDINGS)


def read_nifti(path: str | Path, *, channel: int | None = None) -> tuple[np.ndarray, Geometry]:
    """Read a NIfTI volume in the canonical orientation of :class:`~custom.images.geometry.Geometry`.

    A file without any orientation (``sform_code`` and ``qform_code`` 0) gets nibabel's default affine.

    Args:
        path: ``.nii`` or ``.nii.gz``; 2D or 3D, further axes of one entry are dropped.
        channel: which volume of a 4D file to read; a 3D file has channel 0 only.

    Returns:
        The array (Z, H, W) with the header's scaling applied, integers as they are and real numbers as float32; and
        the source's grid, whose shape ends in 1 for a 2D file.

    Raises:
        InputError: the file cannot be read, is larger than ``custom.limits`` allows, has another shape, is not real,
            or has no usable affine.
    """
    with decoding(path, "NIfTI file"):
        header = _read_header(path)
        stored = header.get_data_shape()
        shape = _grid_shape(stored, channel, path)
        geometry = Geometry(header.get_best_affine(), shape, str(path))
        _check_declared(header, geometry, path)
        part = (slice(None),) * 3 + (channel,) if len(stored) > 3 and channel is not None else ...
        # A map of the file would change with it, or end the process.
        array = np.asanyarray(ArrayProxy(path, header, mmap=False)[part])
        if array.dtype.kind not in "biuf":
            raise InputError(path, "dtype", array.dtype, "integers or real numbers")
        dtype = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
        return geometry.canonical(array.astype(dtype, copy=False).reshape(shape)), geometry


def read_nifti_label(path: str | Path, image: Geometry | None) -> np.ndarray:
    """Read the label map of an image, which may be stored with other axes but must lie on the same grid.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        image: the grid of the image; None where it is a picture, which has none.

    Returns:
        The canonical array (Z, H, W) of integer ids.

    Raises:
        InputError: the file cannot be read, holds no ids, or has another shape or affine than the image.
    """
    array, geometry = read_nifti(path)
    if image is None:
        return as_label(array, path)
    found, allowed = _canonical_grid(geometry), _canonical_grid(image)
    if found.shape != allowed.shape:
        raise InputError(path, "shape", f"{found.shape} (x, y, z)", f"the image's {allowed.shape}")
    if not found.same_grid(allowed, GRID_TOLERANCE * min(allowed.spacing)):
        raise InputError(path, "affine", f"a mismatched affine {_brief(geometry)}", f"the image's {_brief(image)}")
    return as_label(array, path)


def write_nifti(path: str | Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write a canonical array (Z, H, W) as NIfTI, in the axes and with the affine of ``geometry``.

    The file appears whole or not at all. The same array gives the same bytes, compressed where the name ends in
    ``.gz``. Booleans are stored as 0 and 1, and half precision as float32, since NIfTI has neither.

    Raises:
        InputError: the name does not end like NIfTI.
    """
    if not is_nifti(path):
        raise InputError(path, "file name", Path(path).name, f"a name that ends in {' or '.join(NIFTI_ENDINGS)}")
    stored = {"bool": np.dtype(np.uint8), "float16": np.dtype(np.float32)}.get(array.dtype.name, array.dtype)
    restored = geometry.restore(array).astype(stored.newbyteorder("="), copy=False)
    volume = nib.Nifti1Image(restored, geometry.affine, dtype=restored.dtype)
    volume.set_qform(geometry.affine, code="aligned")
    volume.set_sform(geometry.affine, code="aligned")
    volume.header.set_xyzt_units("mm")
    content = volume.to_bytes()
    if str(path).lower().endswith(".gz"):
        content = gzip.compress(content, _COMPRESSION, mtime=0)
    write_whole(Path(path), lambda file: file.write(content))


def _read_header(path: str | Path) -> Nifti1Header:
    """Read the header of NIfTI-1 or NIfTI-2, and nothing else.

    ``nibabel.load`` would also take files of other formats for what they are, and read extensions of any length.
    """
    with ImageOpener(path) as file:
        block = file.read(Nifti2Header.sizeof_hdr)
    for kind in (Nifti1Header, Nifti2Header):
        if kind.may_contain_header(block):
            return kind(block[: kind.sizeof_hdr])
    raise InputError(path, "file", "no header of NIfTI", "NIfTI-1 or NIfTI-2 in one file")


def _check_declared(header: Nifti1Header, geometry: Geometry, path: str | Path) -> None:
    """Check the declared sizes: in memory, where scaled values are real numbers, and in the file."""
    count, stored = math.prod(header.get_data_shape()), header.get_data_dtype().itemsize
    scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))
    itemsize = max(stored, 8) if scaled else stored
    check_size(geometry.canonical_shape, path, itemsize=itemsize)
    BYTES.check(count * itemsize, path, "size")
    deflated = str(path).lower().endswith(".gz")
    check_room(header.get_data_offset() + count * stored, path, deflated=deflated)


def _grid_shape(shape: Sequence[int], channel: int | None, path: str | Path) -> tuple[int, int, int]:
    axes = list(shape)
    while len(axes) > 3 and axes[-1] == 1:
        axes.pop()
    if channel is not None and channel >= (axes.pop() if len(axes) == 4 else 1):
        raise InputError(path, "shape", tuple(shape), f"at least {channel + 1} volumes along the fourth axis")
    if len(axes) == 2:
        axes.append(1)
    if len(axes) != 3 or min(axes) < 1:
        raise InputError(path, "shape", tuple(shape), "2D or 3D" if channel is None else "3D or 4D")
    return axes[0], axes[1], axes[2]


def _canonical_grid(geometry: Geometry) -> Geometry:
    """Return the grid with the axes (x, y, z) of the canonical array, so that stored axis orders can be compared."""
    return Geometry(geometry.canonical_affine, geometry.canonical_shape[::-1], geometry.source)


def _brief(geometry: Geometry) -> str:
    return str(np.round(geometry.affine[:3], 3).tolist())
