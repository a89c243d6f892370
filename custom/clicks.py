"""Clicks on the errors of a mask, as a user makes them: for training, and to measure what clicks gain.

The rule is that of the interactive challenge of CVPR 2025: the next click lies at the centre of the largest error, the
pixel farthest from its border.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from custom.images.boxes import tight_boxes
from custom.prompts import NEGATIVE, POSITIVE

#: Side of the views in pixels: the image around an object, where its mask is corrected.
VIEW_SIZE = 128
#: A view shows the box of all prompts and this share of its longer side on every side of it.
VIEW_MARGIN = 0.2
#: At least this number of pixels of the 256 frame.
_LEAST_MARGIN = 6.0


class Click(NamedTuple):
    """A click on pixel (x, y), ``POSITIVE`` on the object or ``NEGATIVE`` beside it."""

    x: int
    y: int
    label: int


def error_click(mask: np.ndarray, truth: np.ndarray, rng: np.random.Generator | None = None) -> Click | None:
    """Click on the largest error of a mask: positive on what is missing, negative on what is too much.

    Args:
        mask: HxW bool.
        truth: HxW bool.
        rng: draws any pixel of the error instead of its centre; None for the centre.

    Returns:
        The click, or None where there is no error.
    """
    from scipy import ndimage  # slow to import

    largest, label, size = None, POSITIVE, 0
    for errors, kind in ((truth & ~mask, POSITIVE), (mask & ~truth, NEGATIVE)):
        parts, count = ndimage.label(errors)
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            if sizes.max() > size:
                largest, label, size = parts == sizes.argmax() + 1, kind, sizes.max()
    if largest is None:
        return None
    x, y = centre(largest) if rng is None else rng.permutation(np.argwhere(largest))[0][::-1].tolist()
    return Click(x, y, label)


def centre(region: np.ndarray) -> tuple[int, int]:
    """Return the pixel (x, y) of a region, HxW bool, that is farthest from its border and from the image's."""
    from scipy import ndimage  # slow to import

    x_min, y_min, x_max, y_max = tight_boxes(region[None])[0].astype(int)
    inside = np.pad(region[y_min : y_max + 1, x_min : x_max + 1], 1)
    y, x = np.unravel_index(ndimage.distance_transform_edt(inside).argmax(), inside.shape)
    return int(x) - 1 + x_min, int(y) - 1 + y_min


def found_box(mask: np.ndarray) -> np.ndarray:
    """Return the box of a mask, HxW bool, or of the whole image where it is empty: 4 numbers."""
    height, width = mask.shape
    return tight_boxes(mask[None])[0] if mask.any() else np.array([0.0, 0.0, width - 1.0, height - 1.0])


def box_around(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the box around a box (4 numbers) and clicks (Px2)."""
    return np.concatenate([np.vstack([box[:2], points]).min(axis=0), np.vstack([box[2:], points]).max(axis=0)])


def view_boxes(boxes: np.ndarray, size: tuple[int, int], margin: float | np.ndarray = VIEW_MARGIN) -> np.ndarray:
    """Return what views show of objects in these boxes, whole pixels inside the image.

    Args:
        boxes: Nx4 around all prompts of each object, native pixels.
        size: height and width of the image.
        margin: share of the longer side, one number or Nx1.

    Returns:
        Nx4 float64.
    """
    boxes = np.asarray(boxes, np.float64)
    longer = (boxes[:, 2:] - boxes[:, :2] + 1).max(axis=1, keepdims=True)
    grown = np.maximum(longer * margin, _LEAST_MARGIN * max(size) / 256)
    low, high = np.floor(boxes[:, :2] - grown), np.ceil(boxes[:, 2:] + grown)
    last = np.array(size[::-1]) - 1
    return np.concatenate([low.clip(0, last), high.clip(0, last)], axis=1)
