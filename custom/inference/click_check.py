"""Check the clicks on one image."""

from __future__ import annotations

from numbers import Real

import numpy as np

from custom.errors import InputError
from custom.images.image import Image
from custom.inference.corrections import Corrections
from custom.prompts import NEGATIVE, POSITIVE

_POINTS = "lists of clicks x y (z), one list for each object"
_LABELS = "1 (on the object) or 0 (beside it) for each click, one list for each object"


def check_clicks(image: Image, points: object, labels: object = None, *, on_slice: bool = False) -> list[Corrections]:
    """Check the clicks of N objects.

    Args:
        image: the image they belong to.
        points: clicks of each object, x y or in a volume x y z, in pixels of the source; the list around the clicks of
            one object may be missing, and that around the numbers of one click.
        labels: 1 or 0 for each click, in the same lists; 1 by default.
        on_slice: the objects of a volume lie on slices, and so their clicks are x y.

    Raises:
        InputError: malformed lists, a click outside the image, or a label for no click.
    """
    width = 2 if image.kind == "picture" or on_slice else 3
    objects = by_object(points, image.path)
    signs = [[POSITIVE] * len(clicks) for clicks in objects] if labels is None else labels_by_object(labels, image.path)
    if len(signs) != len(objects):
        raise InputError(image.path, "point_labels", f"for {len(signs)} objects", f"for {len(objects)}, as the points")
    last, checked = np.array(image.size[:width]) - 1, []
    for n, clicks in enumerate(objects):
        if len(signs[n]) != len(clicks):
            raise InputError(image.path, f"point_labels[{n}]", f"{len(signs[n])} labels", f"{len(clicks)}, one a click")
        for k, click in enumerate(clicks):
            field = f"points[{n}][{k}]"
            if len(click) != width or not np.isfinite(click).all():
                raise InputError(image.path, field, click, f"{' '.join('xyz'[:width])} in finite numbers")
            if (np.asarray(click) < 0).any() or (np.asarray(click) > last).any():
                limits = ", ".join(f"{axis} 0 to {end}" for axis, end in zip("xyz", last, strict=False))
                raise InputError(image.path, field, click, f"inside the image: {limits}")
        found = np.array(clicks, np.float64).reshape(len(clicks), width)
        checked.append(Corrections(points=found, labels=np.array(signs[n], np.int64)))
    return checked


def by_object(points: object, source: str) -> list[list[list[float]]]:
    """Return clicks as N lists of lists of numbers; the outer lists may be missing.

    Raises:
        InputError: no such lists.
    """
    values = points.tolist() if isinstance(points, np.ndarray) else points
    try:
        depth = _depth(values)
        for _ in range(0 if depth is None else 3 - depth):
            values = [values]
        return [[[float(number) for number in click] for click in clicks] for clicks in values]
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise InputError(source, "points", repr(points)[:80], _POINTS) from None


def labels_by_object(labels: object, source: str) -> list[list[int]]:
    """Return labels as N lists of 0 and 1; the outer list may be missing.

    Raises:
        InputError: no such lists, or another label.
    """
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    try:
        values = [values] if np.isscalar(values) else list(values)
        nested = [values] if all(map(np.isscalar, values)) else [list(signs) for signs in values]
    except TypeError:
        raise InputError(source, "point_labels", repr(labels)[:80], _LABELS) from None
    for n, signs in enumerate(nested):
        for k, sign in enumerate(signs):
            if not isinstance(sign, Real) or isinstance(sign, bool) or sign not in (POSITIVE, NEGATIVE):
                allowed = "1 on the object, 0 beside it"
                raise InputError(source, f"point_labels[{n}][{k}]", repr(sign)[:80], allowed)
    return [[int(sign) for sign in signs] for signs in nested]


def _depth(values: object) -> int | None:
    """Return how many lists lie around a number; None where there is none."""
    if isinstance(values, Real):
        return 0
    if isinstance(values, (str, bytes)):
        raise TypeError
    depths = [depth for item in values if (depth := _depth(item)) is not None]
    return 1 + max(depths) if depths else None
