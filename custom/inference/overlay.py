"""Pictures of results: outlines of the masks and the boxes on the image."""

from __future__ import annotations

import numpy as np
from skimage.morphology import disk, erosion

_COLOURS = np.array(
    [[64, 255, 64], [80, 140, 255], [255, 64, 64], [255, 200, 0], [230, 80, 230], [0, 220, 220]], np.uint8
)


def draw_overlay(image: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Tint and outline each mask and draw its box in the same colour.

    Args:
        image: HxW or HxWx3 uint8.
        labels: HxW, value k for box k.
        boxes: Nx4 x_min y_min x_max y_max, native pixels.

    Returns:
        HxWx3 uint8.
    """
    canvas = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image.copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    for k, box in enumerate(np.rint(boxes).astype(int), start=1):
        colour = _COLOURS[(k - 1) % len(_COLOURS)]
        mask = labels == k
        canvas[mask] = (0.7 * canvas[mask] + 0.3 * colour).astype(np.uint8)
        canvas[mask & ~erosion(mask, disk(width))] = colour
        x_min, y_min, x_max, y_max = box
        line = np.zeros(mask.shape, bool)  # drawn around the box, so that it hides nothing inside
        line[max(y_min - width, 0) : y_max + width + 1, max(x_min - width, 0) : x_max + width + 1] = True
        line[y_min : y_max + 1, x_min : x_max + 1] = False
        canvas[line] = colour
    return canvas
