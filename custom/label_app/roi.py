"""Read the boxes and clicks of a request, in every form that clients send.

In voxels (i, j, k) of the image file as stored, or pixels (x, y) of a picture, both ends inside:

==============  =====================================  ====================================================
field           value                                  sent by
==============  =====================================  ====================================================
``roi``         ``[i0, i1, j0, j1, k0, k1]``           3D Slicer; ends in any order, clipped to the image
``roi``         ``[x0, y0, x1, y1]``                   REST; corners in any order
``box``         ``[x0, y0, x1, y1]``                   REST
``box``         ``[x0, y0, z0, x1, y1, z1]``           REST
``boxes``       a list of what ``box`` takes           REST; box k gets the label value k
``foreground``  ``[[x, y, z], ...]``, ``[x, y]``       OHIF, 3D Slicer: clicks on the object
``background``  the same                               clicks beside the object
==============  =====================================  ====================================================

``roi`` also takes a list of its forms. If a request has several boxes' fields, the first of ``boxes``, ``box`` and
``roi`` counts. Clicks correct the mask of the box; without a box they find the object, or two of them are the corners
of a box (``Meaning``).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from custom.errors import InputError
from custom.prompts import NEGATIVE, POSITIVE

#: What clicks without a box are: points on and beside the object, or the first two foreground clicks are opposite
#: corners of its box.
Meaning = Literal["points", "corners"]
BOX_FIELDS = ("boxes", "box", "roi")
CLICK_FIELDS = {"foreground": POSITIVE, "background": NEGATIVE}
_SOURCE = "request"
_ALLOWED = (
    "roi [i0,i1,j0,j1,k0,k1] or [x0,y0,x1,y1], box [x0,y0,x1,y1] or [x0,y0,z0,x1,y1,z1], boxes [box, ...], "
    "or foreground clicks"
)
_CLICK = "a click [x, y] or [x, y, z]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """The prompt of a request.

    Attributes:
        boxes: Nx4 x_min y_min x_max y_max, or Nx6 x_min y_min z_min x_max y_max z_max; not yet checked against the
            image, which ``Predictor.predict`` does; None for clicks alone.
        slice: number of the slice (k) for boxes of 4 numbers in a volume; None otherwise.
        points: clicks of the only object, Px2 x y or with boxes of 6 numbers Px3 x y z, inside the image; None for
            none.
        point_labels: P, 1 on the object and 0 beside it; None for no clicks.
    """

    boxes: np.ndarray | None
    slice: int | None = None
    points: np.ndarray | None = None
    point_labels: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of objects."""
        return 1 if self.boxes is None else len(self.boxes)


class _Click(NamedTuple):
    """A click of 2 or 3 numbers, its label, and its place in the request."""

    at: tuple[float, ...]
    label: int
    field: str


def has_clicks(request: Mapping[str, Any]) -> bool:
    """Return whether a request has clicks, right or wrong."""
    return any(_given(request.get(name)) for name in CLICK_FIELDS)


def parse_prompt(
    request: Mapping[str, Any], size: Sequence[int], *, dimension: int, flat: int = 2, clicks: Meaning | None = None
) -> Prompt:
    """Read the boxes and clicks of a request.

    Args:
        request: what the client sent.
        size: number of pixels along x, y (and z) of the image file.
        dimension: 2 segments one slice of a volume: by the field ``slice``, else by the first click, else the
            middle one of the first box; 3 segments a volume through all slices of the boxes. A picture is a picture
            in both.
        flat: axis of the file along which a picture has its single pixel; boxes and clicks are used without it.
        clicks: what clicks without a box are; None for weights that were trained without clicks: two foreground clicks
            are corners, and clicks with a box are ignored.

    Raises:
        InputError: no box and no click, a form that is not in the list above, a box or a click outside the image,
            clicks that no box of a volume belongs to, or no such slice.
    """
    shape = np.array(size) if len(size) == 3 else np.insert(size, flat, 1)
    field = next((name for name in BOX_FIELDS if _given(request.get(name))), None)
    found = [] if clicks is None and field else _read_clicks(request, CLICK_FIELDS if clicks else ("foreground",))
    if field is not None:
        boxes = [_box(value, f"{field}[{n}]", shape) for n, value in enumerate(_listed(request[field], field))]
        found = _without_corners(found, boxes[0], 2 if len(size) == 3 else flat)
    elif not found:
        raise InputError(_SOURCE, "roi", "nothing", _ALLOWED)
    elif clicks == "points":
        boxes = []
    else:
        boxes, found = _corners(found, strict=clicks is None)
    _check_clicks(found, shape, size, len(boxes))
    if len(size) == 3:
        return _in_volume(boxes, found, request.get("slice"), size, field or "foreground", dimension)
    if request.get("slice") not in (None, 0, -1):
        raise InputError(_SOURCE, "slice", repr(request["slice"]), "0 or no slice: the image is a picture")
    if not boxes and not any(click.label == POSITIVE for click in found):
        raise InputError(_SOURCE, "foreground", "background clicks alone", "a foreground click, a box or an ROI first")
    return _prompt(boxes, found, flat)


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
    if not all(abs(v) <= sys.float_info.max for v in value):
        raise InputError(_SOURCE, field, repr(value)[:80], "finite numbers")
    return np.array(value, np.float64)


def _box(value: Any, field: str, shape: np.ndarray) -> np.ndarray:
    """Read a box as it is; sort the ends of an ROI, and clip those of 3D Slicer, which may lie beyond the image."""
    if not field.startswith("roi"):
        return _numbers(value, field, (4, 6), "[x0,y0,x1,y1] or [x0,y0,z0,x1,y1,z1]")
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


def _read_clicks(request: Mapping[str, Any], names: Sequence[str] | Mapping[str, int]) -> list[_Click]:
    """Read the clicks of a request, those on the object first; the same click twice counts once."""
    found: list[_Click] = []
    for name in names:
        value = request.get(name)
        if _given(value) and not isinstance(value, (list, tuple)):
            raise InputError(_SOURCE, name, repr(value)[:80], f"a list: {_CLICK}, ...")
        for n, click in enumerate(value or ()):
            field = f"{name}[{n}]"
            numbers = _numbers(click, field, (2, 3), _CLICK).tolist()
            found.append(_Click(tuple(numbers), CLICK_FIELDS[name], field))
    return list({(click.at, click.label): click for click in found}.values())


def _corners(clicks: list[_Click], *, strict: bool) -> tuple[list[np.ndarray], list[_Click]]:
    """Return the box of the first two foreground clicks, and the other clicks, which ``strict`` forbids."""
    front = [click for click in clicks if click.label == POSITIVE]
    wrong = len(front) != 2 if strict else len(front) < 2
    if wrong or len(front[0].at) != len(front[1].at):
        found = f"{len(front)} clicks" if wrong else "clicks of 2 and of 3 numbers"
        raise InputError(_SOURCE, "foreground", found, "two clicks, opposite corners of the box")
    return [_sorted(front[0].at, front[1].at)], [click for click in clicks if click not in front[:2]]


def _without_corners(clicks: list[_Click], box: np.ndarray, flat: int) -> list[_Click]:
    """Drop two foreground clicks that made the box: a client may send them along with it."""
    front = [click for click in clicks if click.label == POSITIVE][:2]
    if len(front) == 2 and len(front[0].at) == len(front[1].at):
        made = _sorted(front[0].at, front[1].at)
        if np.array_equal(_without([made], flat), _without([box], flat)):
            return [click for click in clicks if click not in front]
    return clicks


def _check_clicks(clicks: list[_Click], shape: np.ndarray, size: Sequence[int], boxes: int) -> None:
    """Check that clicks lie in the image and belong to one object."""
    if clicks and boxes > 1:
        raise InputError(_SOURCE, clicks[0].field, f"clicks with {boxes} boxes", "one box with its clicks")
    for click in clicks:
        last = (shape if len(click.at) == 3 else np.array(size[:2])) - 1
        if min(click.at) < 0 or (np.array(click.at) > last).any():
            limits = ", ".join(f"{axis} 0 to {n}" for axis, n in zip("xyz", last.tolist(), strict=False))
            raise InputError(_SOURCE, click.field, list(click.at), f"inside the image: {limits}")


def _sorted(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(one, other), np.maximum(one, other)])


def _in_volume(
    boxes: list[np.ndarray], clicks: list[_Click], given: Any, size: Sequence[int], field: str, dimension: int
) -> Prompt:
    if not boxes:
        allowed = "a box or ROI around the object first; clicks then correct its mask"
        raise InputError(_SOURCE, "foreground", "clicks without a box, in a volume", allowed)
    if dimension == 3:
        return _through_volume(boxes, clicks, field)
    if given is None:
        deep = [click.at[2] for click in clicks if len(click.at) == 3]
        deep += [(box[2] + box[5]) // 2 for box in boxes if len(box) == 6]
        if not deep:
            raise InputError(_SOURCE, "slice", "no slice", f"the slice of the box, 0 to {size[2] - 1}")
        given = round(float(deep[0]))
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not number or not 0 <= given < size[2] or given != int(given):
        raise InputError(_SOURCE, "slice", repr(given), f"0 to {size[2] - 1}")
    # 3D Slicer sends the clicks of all slices along for the first slice.
    here = [click for click in clicks if len(click.at) == 2 or np.rint(click.at[2]) == given]
    return _prompt(boxes, here, 2, int(given))


def _through_volume(boxes: list[np.ndarray], clicks: list[_Click], field: str) -> Prompt:
    flat = [n for n, box in enumerate(boxes) if len(box) == 4]
    if flat:
        found = f"{field}[{flat[0]}] with 4 numbers, for a volume"
        raise InputError(_SOURCE, field, found, "6 numbers, or the 2D model with a slice")
    for click in clicks:
        if len(click.at) == 2:
            raise InputError(_SOURCE, click.field, list(click.at), "[x, y, z] in a volume")
        low, high = np.rint(boxes[0][[2, 5]]).astype(int).tolist()
        if not low <= np.rint(click.at[2]) <= high:
            allowed = f"a slice of the box, {low} to {high}; a larger box or ROI has more"
            raise InputError(_SOURCE, click.field, f"slice {click.at[2]:g}", allowed)
    return _prompt(boxes, clicks, None)


def _prompt(boxes: list[np.ndarray], clicks: list[_Click], flat: int | None, k: int | None = None) -> Prompt:
    """Make the prompt, without an axis of boxes and clicks."""
    placed = np.stack(boxes if flat is None else _without(boxes, flat)) if boxes else None
    if not clicks:
        return Prompt(boxes=placed, slice=k)
    points = [click.at if flat is None or len(click.at) == 2 else np.delete(click.at, flat) for click in clicks]
    labels = np.array([click.label for click in clicks])
    return Prompt(boxes=placed, slice=k, points=np.array(points), point_labels=labels)


def _without(boxes: Sequence[np.ndarray], axis: int) -> list[np.ndarray]:
    return [np.delete(box, [axis, axis + 3]) if len(box) == 6 else box for box in boxes]
