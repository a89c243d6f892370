"""Lengths of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def longest_diameter(mask: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Return the largest distance between the centres of two pixels of a mask, HxW or DxHxW, that lie in one slice.

    It is in the unit of ``spacing``, mm along y, x (or z, y, x), or in pixels; 0 for an empty mask or a single pixel.
    """
    steps = np.ones(2) if spacing is None else np.asarray(spacing, np.float64)[-2:]
    return max((_diameter(plane, steps) for plane in (mask if mask.ndim == 3 else mask[None])), default=0.0)


def _diameter(plane: np.ndarray, steps: np.ndarray) -> float:
    from scipy.spatial import ConvexHull, QhullError, distance  # slow to import

    rows = np.flatnonzero(plane.any(axis=1))
    if not len(rows):
        return 0.0
    lines = plane[rows]
    ends = np.stack([lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)], axis=1)
    points = np.stack([rows.repeat(2), ends.ravel()], axis=1)  # the first and last pixel of each row, in order
    try:
        corners = points[ConvexHull(points).vertices]  # whole numbers, so no corner is lost to rounding
    except QhullError:  # all on one line from the first to the last point
        corners = points[[0, -1]]
    return float(distance.pdist(corners * steps).max())
