"""Check the prompts of one image before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from custom.errors import InputError
from custom.images.boxes import check_boxes
from custom.images.image import Image
from custom.inference.click_check import check_clicks
from custom.inference.corrections import Corrections


class CheckedPrompts(NamedTuple):
    """Prompts of N objects that lie in their image.

    Attributes:
        boxes: Nx4 for a picture, Nx6 for a volume, float64, in pixels of the source; with ``slices`` Nx4; NaN for an
            object without a box.
        slices: slice of each box along the third axis of a volume, or None.
        corrections: clicks of each object in pixels of the source and its mask in the source's shape, or None.
    """

    boxes: np.ndarray
    slices: tuple[int, ...] | None = None
    corrections: tuple[Corrections, ...] | None = None

    @property
    def in_volume(self) -> np.ndarray:
        """The boxes with a slice as Nx6."""
        if self.slices is None:
            return self.boxes
        z = np.array(self.slices, np.float64)
        return np.insert(self.boxes, [2, 4], np.stack([z, z], axis=1), axis=1)


def check_prompt(image: Image, boxes: object = None, slices: object = None) -> CheckedPrompts:
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
        return CheckedPrompts(image.checked_boxes(given))
    if image.kind != "volume":
        raise InputError(image.path, "slice", slices, "no slice: the image is a picture")
    width, height, depth = image.size
    checked = check_boxes(given, (height, width), image.path)
    numbers = np.atleast_1d(np.asarray(slices))
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((1,), (len(checked),)):
        raise InputError(image.path, "slice", slices, f"one whole number, or {len(checked)}, one for each box")
    if numbers.min() < 0 or numbers.max() >= depth:
        raise InputError(image.path, "slice", numbers.tolist(), f"0 to {depth - 1}")
    return CheckedPrompts(checked, tuple(int(k) for k in np.broadcast_to(numbers, len(checked))))


def check_prompts(
    image: Image,
    boxes: object = None,
    slices: object = None,
    points: object = None,
    point_labels: object = None,
    masks: object = None,
) -> CheckedPrompts:
    """Check boxes, clicks and masks of N objects; what has no box has a click or a mask.

    Args:
        image: the image they belong to.
        boxes: as for ``check_prompt``; with clicks or masks, None is for objects without.
        slices: as for ``check_prompt``.
        points: clicks of each object, x y or in a volume x y z; one object may come without the outer list.
        point_labels: 1 (on the object) or 0 (beside it) for each click; 1 by default.
        masks: mask of each object in the image's own shape, or None.

    Raises:
        InputError: a prompt that does not fit the image or the other prompts.
    """
    if points is None and masks is None:
        if point_labels is not None:
            raise InputError(image.path, "point_labels", "labels", "no labels without points")
        return check_prompt(image, boxes, slices)
    clicks = None if points is None else check_clicks(image, points, point_labels, on_slice=slices is not None)
    shapes = None if masks is None else _checked_masks(image, masks)
    count = len(clicks if clicks is not None else shapes)
    if not count:
        raise InputError(image.path, "masks" if clicks is None else "points", "no object", "one or more")
    for name, given in (("points", clicks), ("masks", shapes)):
        if given is not None and len(given) != count:
            raise InputError(image.path, name, f"{len(given)} objects", f"{count}, as many as have points")
    if boxes is not None:
        checked = check_prompt(image, boxes, slices)
        if len(checked.boxes) != count:
            name = "points" if clicks is not None else "masks"
            raise InputError(image.path, name, f"{count} objects", f"{len(checked.boxes)}, one for each box")
    elif image.kind == "volume":
        raise InputError(image.path, "boxes", "clicks without a box in a volume", "a box for each object")
    else:
        checked = CheckedPrompts(np.full((count, 4), np.nan))
    given = tuple(
        replace(Corrections() if clicks is None else clicks[n], mask=None if shapes is None else shapes[n])
        for n in range(count)
    )
    for n, correction in enumerate(given):
        if np.isnan(checked.boxes[n]).any() and not correction:
            raise InputError(image.path, f"points[{n}]", "no click, no box and no mask", "one of them at least")
    return checked._replace(corrections=given)


def _checked_masks(image: Image, masks: object) -> list[np.ndarray | None]:
    """Return masks on the grid of the image's array."""
    if image.kind == "volume":
        raise InputError(image.path, "masks", "masks for a volume", "masks for a picture")
    several = not isinstance(masks, np.ndarray) or masks.ndim > len(image.stored_shape or image.array.shape[:2])
    found = list(masks) if several else [masks]
    checked = []
    for n, mask in enumerate(found):
        try:
            checked.append(None if mask is None else image.from_source(np.asarray(mask) > 0))
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(image.path, f"masks[{n}]", repr(mask)[:80], "an array of numbers") from None
    return checked


def placed_boxes(image: Image, boxes: np.ndarray) -> np.ndarray:
    """Turn checked boxes, NaN for an object without, to the pixels of ``image.array``."""
    boxed = np.isfinite(boxes).all(axis=1)
    placed = np.full_like(boxes, np.nan)
    placed[boxed] = image.boxes_to_array(boxes[boxed])
    return placed


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
