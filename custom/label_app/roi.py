"""Read the boxes of a request, in every form that clients send.

In voxels (i, j, k) of the image file as stored, or pixels (x, y) of a picture, both ends inside:

==============  =====================================  ====================================================
field           value                                  sent by
==============  =====================================  ====================================================
``roi``         ``[i0, i1, j0, j1, k0, k1]``           3D Slicer; ends in any order, clipped to the image
``roi``         ``[x0, y0, x1, y1]``                   REST; corners in any order
``box``         ``[x0, y0, x1, y1]``                   REST
``box``         ``[x0, y0, z0, x1, y1, z1]``           REST
``boxes``       a list of what ``box`` takes           REST; box k gets the label value k
``foreground``  ``[[x, y, z], [x, y, z]]``, ``[x, y]``  OHIF, 3D Slicer: two clicks are opposite corners
==============  =====================================  ====================================================

``roi`` also takes a list of its forms. If a request has several fields, the first of ``boxes``, ``box``, ``roi`` and
``foreground`` counts: 3D Slicer sends its clicks along with the ROI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from custom.errors import InputError

FIELDS = ("boxes", "box", "roi", "foreground")
_SOURCE = "request"
_ALLOWED = (
    "roi [i0,i1,j0,j1,k0,k1] or [x0,y0,x1,y1], box [x0,y0,x1,y1] or [x0,y0,z0,x1,y1,z1], boxes [box, ...], "
    "or two foreground clicks"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """The prompt of a request.

    Attributes:
        boxes: Nx4 x_min y_min x_max y_max, or Nx6 x_min y_min z_min x_max y_max z_max; not yet checked against the
            image, which ``Predictor.predict`` does.
        slice: number of the slice (k) for boxes of 4 numbers in a volume; None otherwise.
    """

    boxes: np.ndarray
    slice: int | None = None


def parse_prompt(request: Mapping[str, Any], size: Sequence[int], *, dimension: int, flat: int = 2) -> Prompt:
    """Read the boxes of a request.

    Args:
        request: what the client sent.
        size: number of pixels along x, y (and z) of the image file.
        dimension: 2 segments one slice of a volume: by the field ``slice``, else by the clicks, else the
            middle one of the first box; 3 segments a volume through all slices of the boxes. A picture is a picture
            in both.
        flat: axis of the file along which a picture has its single pixel; boxes of 6 numbers are used without it.

    Raises:
        InputError: no box, a form that is not in the list above, a box that lies outside the image, or no such slice.
    """
    field = next((name for name in FIELDS if _given(request.get(name))), None)
    if field is None:
        raise InputError(_SOURCE, "roi", "nothing", _ALLOWED)
    shape = np.array(size) if len(size) == 3 else np.insert(size, flat, 1)
    read = {"roi": _roi, "foreground": _clicks}.get(field, _box)
    boxes = [read(value, f"{field}[{n}]", shape) for n, value in enumerate(_listed(request[field], field))]
    if len(size) == 3:
        return _in_volume(boxes, request.get("slice"), size, field, dimension)
    if request.get("slice") not in (None, 0, -1):
        raise InputError(_SOURCE, "slice", repr(request["slice"]), "0 or no slice: the image is a picture")
    return Prompt(boxes=_without(boxes, flat))


def _given(value: object) -> bool:
    return value is not None and not (isinstance(value, (list, tuple, str)) and not len(value))


def _listed(value: Any, field: str) -> list[Any]:
    """Return the boxes of a field one by one."""
    if not isinstance(value, (list, tuple)):
        raise InputError(_SOURCE, field, repr(value)[:80], _ALLOWED)
    nested = [isinstance(item, (list, tuple)) for item in value]
    several = field == "boxes" or (field == "roi" and all(nested))
    if several and not all(nested):
        raise InputError(_SOURCE, field, repr(value)[:80], "a list of boxes: [[x0,y0,x1,y1], ...]")
    return list(value) if several else [value]


def _numbers(value: Any, field: str, counts: Sequence[int], allowed: str) -> np.ndarray:
    right = isinstance(value, (list, tuple)) and len(value) in counts
    if not right or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in value):
        raise InputError(_SOURCE, field, repr(value)[:80], allowed)
    try:
        array = np.array(value, np.float64)
    except OverflowError:  # an integer beyond the range of floats
        array = np.array(np.inf)
    if not np.isfinite(array).all():
        raise InputError(_SOURCE, field, repr(value)[:80], "finite numbers")
    return array


def _box(value: Any, field: str, shape: np.ndarray) -> np.ndarray:
    """Read 4 or 6 numbers without changes."""
    return _numbers(value, field, (4, 6), "[x0,y0,x1,y1] or [x0,y0,z0,x1,y1,z1]")


def _roi(value: Any, field: str, shape: np.ndarray) -> np.ndarray:
    """Sort the ends; those of 3D Slicer, which may be drawn beyond the image, are clipped to it."""
    array = _numbers(value, field, (4, 6), "[i0,i1,j0,j1,k0,k1] or [x0,y0,x1,y1]")
    if len(array) == 4:
        return _sorted(array[:2], array[2:])
    box = _sorted(array[0::2], array[1::2])
    limit = shape - 1
    low, high = np.maximum(box[:3], 0), np.minimum(box[3:], limit)
    if (low > high).any():
        allowed = ", ".join(f"{axis} 0 to {n}" for axis, n in zip("ijk", limit.tolist(), strict=True))
        raise InputError(_SOURCE, field, list(value), f"a box that meets the image: {allowed}")
    return np.concatenate([low, high])


def _clicks(value: Any, field: str, shape: np.ndarray) -> np.ndarray:
    """Read two clicks as opposite corners."""
    allowed = "two clicks [x, y] or [x, y, z], opposite corners of the box"
    if len(value) != 2:
        raise InputError(_SOURCE, "foreground", f"{len(value)} clicks", allowed)
    first, second = (_numbers(click, "foreground", (2, 3), allowed) for click in value)
    if len(first) != len(second):
        raise InputError(_SOURCE, "foreground", repr(value)[:80], allowed)
    return _sorted(first, second)


def _sorted(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(one, other), np.maximum(one, other)])


def _in_volume(boxes: list[np.ndarray], given: Any, size: Sequence[int], field: str, dimension: int) -> Prompt:
    flat = [n for n, box in enumerate(boxes) if len(box) == 4]
    if dimension == 3:
        if flat:
            found = f"{field}[{flat[0]}] with 4 numbers, for a volume"
            raise InputError(_SOURCE, field, found, "6 numbers, or the 2D model with a slice")
        return Prompt(boxes=np.stack(boxes))
    if given is None:
        deep = next((box for box in boxes if len(box) == 6), None)
        if deep is None:
            raise InputError(_SOURCE, "slice", "no slice", f"the slice of the box, 0 to {size[2] - 1}")
        given = (deep[2] + deep[5]) // 2
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not number or not 0 <= given < size[2] or given != int(given):
        raise InputError(_SOURCE, "slice", repr(given), f"0 to {size[2] - 1}")
    return Prompt(boxes=_without(boxes, 2), slice=int(given))


def _without(boxes: Sequence[np.ndarray], axis: int) -> np.ndarray:
    return np.stack([np.delete(box, [axis, axis + 3]) if len(box) == 6 else box for box in boxes])
