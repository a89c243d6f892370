"""Pictures of results: outlines of the masks and the boxes on the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion, find_objects

MONTAGE_SLICES = 12
_COLUMNS = 4
_TILE = 288  # longer side of a slice in a montage, pixels
_CAPTION = 18
_COLOURS = np.array(
    [[64, 255, 64], [80, 140, 255], [255, 64, 64], [255, 200, 0], [230, 80, 230], [0, 220, 220]], np.uint8
)


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, boxes: np.ndarray, values: Sequence[int] | None = None
) -> np.ndarray:
    """Tint and outline each mask and draw its box in the same colour.

    Args:
        image: HxW or HxWx3 uint8.
        labels: HxW, value k for box k.
        boxes: Nx4 x_min y_min x_max y_max, native pixels.
        values: the label of each box; 1..N by default.

    Returns:
        HxWx3 uint8.
    """
    canvas = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image.copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    values = range(1, len(boxes) + 1) if values is None else values
    places = find_objects(labels.astype(np.int32, copy=False), max(values, default=0))
    for k, box in zip(values, np.rint(boxes).astype(int), strict=True):
        colour = _COLOURS[(k - 1) % len(_COLOURS)]
        if places[k - 1] is not None:
            part = tuple(slice(max(p.start - width, 0), p.stop + width) for p in places[k - 1])
            mask, shown = labels[part] == k, canvas[part]
            shown[mask] = (0.7 * shown[mask] + 0.3 * colour).astype(np.uint8)
            shown[mask & ~binary_erosion(mask, iterations=width, border_value=1)] = colour
        x_min, y_min, x_max, y_max = box
        left, top = max(x_min - width, 0), max(y_min - width, 0)
        right, bottom = x_max + 1 + width, y_max + 1 + width
        for rows, columns in (  # drawn around the box, so that it hides nothing inside
            (slice(top, y_min), slice(left, right)),
            (slice(y_max + 1, bottom), slice(left, right)),
            (slice(top, bottom), slice(left, x_min)),
            (slice(top, bottom), slice(x_max + 1, right)),
        ):
            canvas[rows, columns] = colour
    return canvas


def draw_montage(volume: np.ndarray, labels: np.ndarray, boxes: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Draw up to ``MONTAGE_SLICES`` slices, evenly spread over those that lie in a box, each as ``draw_overlay`` does.

    Args:
        volume: DxHxW or DxHxWx3 uint8.
        labels: DxHxW, value k for box k.
        boxes: Nx6 x_min y_min z_min x_max y_max z_max.
        captions: a text for each of the D slices.

    Returns:
        HxWx3 uint8.
    """
    first, last = (np.rint(boxes[:, axis]).astype(int) for axis in (2, 5))
    covered = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]))
    chosen = covered[np.unique(np.linspace(0, len(covered) - 1, MONTAGE_SLICES).round().astype(int))]
    height, width = (max(1, round(n * _TILE / max(labels.shape[1:]))) for n in labels.shape[1:])
    columns = min(_COLUMNS, len(chosen))
    size = (columns * (width + 2), math.ceil(len(chosen) / columns) * (height + _CAPTION))
    montage = Image.new("RGB", size)
    pen, font = ImageDraw.Draw(montage), ImageFont.load_default(12)
    scale = np.array([width / labels.shape[2], height / labels.shape[1]] * 2)
    for n, z in enumerate(chosen.tolist()):
        inside = np.flatnonzero((first <= z) & (z <= last))
        small = Image.fromarray(volume[z]).resize((width, height), Image.Resampling.BILINEAR)
        nearest = Image.fromarray(labels[z].astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
        framed = ((boxes[inside][:, [0, 1, 3, 4]] + 0.5) * scale - 0.5).clip(0)
        tile = draw_overlay(np.asarray(small), np.asarray(nearest), framed, (inside + 1).tolist())
        left, top = n % columns * (width + 2) + 1, n // columns * (height + _CAPTION)
        pen.text((left + 2, top + 2), captions[z], (230, 230, 230), font)
        montage.paste(Image.fromarray(tile), (left, top + _CAPTION))
    return np.asarray(montage)
