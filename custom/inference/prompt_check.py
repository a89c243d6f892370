"""Check the boxes of one image before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from custom.errors import InputError
from custom.images.boxes import check_boxes
from custom.images.image import Image


class CheckedBoxes(NamedTuple):
    """Boxes that lie in their image.

    Attributes:
        boxes: Nx4 for a picture, Nx6 for a volume, float64, in pixels of the source; with ``slices`` Nx4.
        slices: slice of each box along the third axis of a volume, or None.
    """

    boxes: np.ndarray
    slices: tuple[int, ...] | None = None

    @property
    def in_volume(self) -> np.ndarray:
        """The boxes with a slice as Nx6."""
        if self.slices is None:
            return self.boxes
        z = np.array(self.slices, np.float64)
        return np.insert(self.boxes, [2, 4], np.stack([z, z], axis=1), axis=1)


def check_prompt(image: Image, boxes: object = None, slices: object = None) -> CheckedBoxes:
    """Check boxes in pixels of the source.

    Args:
        image: the image they belong to.
        boxes: one box or N: x_min y_min x_max y_max, in a volume x_min y_min z_min x_max y_max z_max, both ends
            inside; None takes those of the file (npz).
        slices: for boxes of 4 numbers in a volume, the slice, one for all or one each.

    Raises:
        InputError: no boxes, a box that ``check_boxes`` refuses, or a slice that does not exist.
    """
    given = image.boxes if boxes is None else boxes
    if given is None:
        raise InputError(image.path, "boxes", "no boxes", "boxes, or a file that has them (npz)")
    if slices is None:
        if image.kind == "volume" and _width(given) == 4:
            allowed = "6 numbers (x y z, x y z), or 4 with the slice they are on"
            raise InputError(image.path, "boxes", "4 numbers per box for a volume", allowed)
        return CheckedBoxes(image.checked_boxes(given))
    if image.kind != "volume":
        raise InputError(image.path, "slice", slices, "no slice: the image is a picture")
    width, height, depth = image.size
    checked = check_boxes(given, (height, width), image.path)
    numbers = np.atleast_1d(np.asarray(slices))
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((1,), (len(checked),)):
        raise InputError(image.path, "slice", slices, f"one whole number, or {len(checked)}, one for each box")
    if numbers.min() < 0 or numbers.max() >= depth:
        raise InputError(image.path, "slice", numbers.tolist(), f"0 to {depth - 1}")
    return CheckedBoxes(checked, tuple(int(k) for k in np.broadcast_to(numbers, len(checked))))


def check_names(names: Sequence[str] | str | None, count: int, source: str) -> tuple[str, ...]:
    """Return a name for each of N objects: the given names, else "box 1" to "box N".

    Raises:
        InputError: a different number of names.
    """
    if names is None:
        return tuple(f"box {k}" for k in range(1, count + 1))
    given = tuple(str(name).strip() for name in ([names] if isinstance(names, str) else names))
    if len(given) != count or not all(given):
        raise InputError(
            source, "names", f"{len(given)} names: {', '.join(given)}", f"a name for each of {count} boxes"
        )
    return given


def _width(boxes: object) -> int | None:
    """Return the count of numbers in a box, or None if it cannot be determined."""
    try:
        array = np.atleast_2d(np.asarray(boxes, np.float64))
    except (TypeError, ValueError, OverflowError):
        return None
    return array.shape[1] if array.ndim == 2 else None
