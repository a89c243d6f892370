"""Shared by the formats with a grid: choose a volume of a 4D file, and make an ``Image`` of an array on its grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.decoding import as_label
from custom.images.geometry import Geometry
from custom.images.image import Image


def grid_shape(shape: Sequence[int], frame: int | None, path: str | Path) -> tuple[int, int, int]:
    """Return the shape (I, J, K) of one volume of a file, K = 1 for a flat one; further axes of one entry are dropped.

    ``frame`` is the number of the volume along the fourth axis, from 0.

    Raises:
        InputError: another number of axes, no such volume, or several volumes and no ``frame``.
    """
    axes = [int(n) for n in shape]
    while len(axes) > 3 and axes[-1] == 1:
        axes.pop()
    if len(axes) == 2:
        axes.append(1)
    if len(axes) not in (3, 4) or min(axes) < 1:
        raise InputError(path, "shape", tuple(map(int, shape)), "2D, 3D or 4D")
    count = axes[3] if len(axes) == 4 else 1
    chosen = 0 if frame is None and count == 1 else frame
    if not isinstance(chosen, int) or not 0 <= chosen < count:
        found = f"4D with {count} volumes" if frame is None else f"{frame} of {count}"
        raise InputError(path, "frame", found, f"frame 0 to {count - 1}" if count > 1 else "frame 0")
    return axes[0], axes[1], axes[2]


def image_on_grid(array: np.ndarray, geometry: Geometry, *, labels: bool, **facts: Any) -> Image:
    """Build the image of an array as stored, IxJxK or, with colours, IxJxKxC; ``facts`` are further fields.

    Integers keep their dtype, real numbers become float32. With ``labels`` the array must hold ids.

    Raises:
        InputError: the array is not real, or does not hold ids.
    """
    path = facts["path"]
    if array.dtype.kind not in "biuf":
        raise InputError(path, "dtype", array.dtype, "integers or real numbers")
    if labels:
        array = as_label(array, path)
    dtype = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # values become infinite, which is reported when they are scaled
        array = geometry.canonical(array.astype(dtype, copy=False))
    kind = "picture" if len(array) == 1 else "volume"
    return Image(array=array, kind=kind, geometry=geometry, spacing=geometry.spacing, **facts)
