"""Pictures of results: outlines of the masks, the boxes with their numbers, and the clicks, on the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion, find_objects

from custom.images.colours import colour_of
from custom.prompts import POSITIVE

MONTAGE_SLICES = 12
_COLUMNS = 4
_TILE = 288  # longer side of a slice in a montage, pixels
_CAPTION = 18
_SHORTEST = 512  # smallest longer side of the picture of a result
_LINES = 32  # lines of text that fit along the longer side
_DOTS = 100  # radii of a click that fit along the longer side
_GREEN, _RED = (0, 220, 0), (230, 0, 0)  # of positive and negative clicks

#: Clicks of each object: Px2 x y, in a stack Px3 x y z, native pixels, and their labels P.
Clicks = Sequence[tuple[np.ndarray, np.ndarray]]


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, boxes: np.ndarray, values: Sequence[int] | None = None
) -> np.ndarray:
    """Tint and outline each mask and draw its box in the same colour.

    Args:
        image: HxW or HxWx3 uint8.
        labels: HxW, value k for box k.
        boxes: Nx4 x_min y_min x_max y_max, native pixels; NaN for an object without.
        values: the label of each box; 1..N by default.

    Returns:
        HxWx3 uint8.
    """
    canvas = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image.copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    values = range(1, len(boxes) + 1) if values is None else values
    places = find_objects(labels.astype(np.int32, copy=False), max(values, default=0))
    for k, box in zip(values, np.rint(boxes), strict=True):
        colour = colour_of(k)
        if places[k - 1] is not None:
            part = tuple(slice(max(p.start - width, 0), p.stop + width) for p in places[k - 1])
            mask, shown = labels[part] == k, canvas[part]
            shown[mask] = (0.7 * shown[mask] + 0.3 * colour).astype(np.uint8)
            shown[mask & ~binary_erosion(mask, iterations=width, border_value=1)] = colour
        if np.isnan(box).any():
            continue
        x_min, y_min, x_max, y_max = box.astype(int)
        inside = slice(y_min, y_max + 1), slice(x_min, x_max + 1)
        content = canvas[inside].copy()  # the frame is drawn around the box, so that it hides nothing
        canvas[max(y_min - width, 0) : y_max + 1 + width, max(x_min - width, 0) : x_max + 1 + width] = colour
        canvas[inside] = content
    return canvas


def draw_result(
    image: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    ious: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    clicks: Clicks | None = None,
) -> np.ndarray:
    """Draw a result as ``draw_overlay`` does, with a text beside each box: its number or name and predicted IoU.

    A small picture is enlarged by a whole factor, so that its longer side has at least 512 pixels. A text without free
    room beside its box is omitted. Positive clicks are green dots, negative ones red.

    Args:
        image: HxW or HxWx3 uint8.
        labels: HxW, value k for box k.
        boxes: Nx4 x_min y_min x_max y_max; NaN for an object without, whose text is beside its mask.
        ious: predicted IoU of each box.
        names: name of each box, instead of its number.
        clicks: of each object.

    Returns:
        HxWx3 uint8, or larger if enlarged.
    """
    factor = max(1, math.ceil(_SHORTEST / max(labels.shape)))
    ends = np.rint(boxes) * factor + np.repeat([0, factor - 1], 2)  # the last pixel of a box is enlarged too
    large = _enlarged(labels, factor)
    drawn = draw_overlay(_enlarged(image, factor), large, ends)
    dots = [((points + 0.5) * factor - 0.5, signs) for points, signs in clicks or ()]
    drawn = _dotted(drawn, dots)
    return _annotated(drawn, _anchors(ends, large, dots), range(1, len(boxes) + 1), _texts(len(boxes), ious, names))


def draw_montage(
    volume: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    captions: Sequence[str],
    ious: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    clicks: Clicks | None = None,
) -> np.ndarray:
    """Draw up to ``MONTAGE_SLICES`` slices, evenly spread over those that lie in a box, each as ``draw_result`` does.

    Args:
        volume: DxHxW or DxHxWx3 uint8.
        labels: DxHxW, value k for box k.
        boxes: Nx6 x_min y_min z_min x_max y_max z_max.
        captions: a text for each of the D slices.
        ious, names, clicks: as for ``draw_result``.

    Returns:
        HxWx3 uint8.
    """
    first, last = (np.rint(boxes[:, axis]).astype(int) for axis in (2, 5))
    covered = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]))
    chosen = covered[np.unique(np.linspace(0, len(covered) - 1, MONTAGE_SLICES).round().astype(int))]
    height, width = (max(1, round(n * _TILE / max(labels.shape[1:]))) for n in labels.shape[1:])
    columns = min(_COLUMNS, len(chosen))
    size = (columns * (width + 2), math.ceil(len(chosen) / columns) * (height + _CAPTION))
    montage, texts = Image.new("RGB", size), _texts(len(boxes), ious, names)
    pen, font = ImageDraw.Draw(montage), ImageFont.load_default(12)
    scale = np.array([width / labels.shape[2], height / labels.shape[1]] * 2)
    for n, z in enumerate(chosen.tolist()):
        inside = np.flatnonzero((first <= z) & (z <= last))
        small = Image.fromarray(volume[z]).resize((width, height), Image.Resampling.BILINEAR)
        nearest = Image.fromarray(labels[z].astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
        framed, values = ((boxes[inside][:, [0, 1, 3, 4]] + 0.5) * scale - 0.5).clip(0), (inside + 1).tolist()
        tile = draw_overlay(np.asarray(small), np.asarray(nearest), framed, values)
        here = [(points, signs, np.rint(points[:, 2]) == z) for points, signs in clicks or ()]
        tile = _dotted(tile, [((points[on, :2] + 0.5) * scale[:2] - 0.5, signs[on]) for points, signs, on in here])
        tile = _annotated(tile, framed, values, [texts[k] for k in inside])
        left, top = n % columns * (width + 2) + 1, n // columns * (height + _CAPTION)
        pen.text((left + 2, top + 2), captions[z], (230, 230, 230), font)
        montage.paste(Image.fromarray(tile), (left, top + _CAPTION))
    return np.asarray(montage)


def _dotted(canvas: np.ndarray, clicks: Clicks) -> np.ndarray:
    """Draw a dot at each click."""
    picture, radius = Image.fromarray(canvas), max(3, round(max(canvas.shape[:2]) / _DOTS))
    pen = ImageDraw.Draw(picture)
    for points, signs in clicks:
        for (x, y), sign in zip(points.tolist(), signs.tolist(), strict=True):
            ends = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(ends, _GREEN if sign == POSITIVE else _RED, (0, 0, 0), max(1, radius // 4))
    return np.asarray(picture)


def _anchors(boxes: np.ndarray, labels: np.ndarray, clicks: Clicks) -> np.ndarray:
    """Return what texts are beside: boxes, or else the box of a mask or of the clicks."""
    anchors, places = boxes.copy(), find_objects(labels.astype(np.int32, copy=False), len(boxes))
    for k in np.flatnonzero(np.isnan(boxes).any(axis=1)):
        points = clicks[k][0] if len(clicks) else np.zeros((0, 2))
        if places[k] is not None:
            rows, columns = places[k]
            anchors[k] = columns.start, rows.start, columns.stop - 1, rows.stop - 1
        else:
            anchors[k] = [*points.min(axis=0), *points.max(axis=0)] if len(points) else 0
    return anchors


def _enlarged(array: np.ndarray, factor: int) -> np.ndarray:
    """Repeat each pixel: HxW[xC] -> (factor H)x(factor W)[xC]."""
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _texts(count: int, ious: Sequence[float] | None, names: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return the two parts of each box's text: a name, which may be shortened, and a number."""
    heads = [str(k) for k in range(1, count + 1)] if names is None else [" ".join(name.split()) for name in names]
    gaps = ["  " if head.isdecimal() else " " for head in heads]  # two numbers need a wider gap
    return [(head, "" if ious is None else f"{gaps[k]}{ious[k]:.2f}") for k, head in enumerate(heads)]


def _annotated(
    canvas: np.ndarray, boxes: np.ndarray, values: Sequence[int], texts: Sequence[tuple[str, str]]
) -> np.ndarray:
    """Write a text beside each box, inside the picture and not over another text."""
    picture, (height, width) = Image.fromarray(canvas), canvas.shape[:2]
    line, size = max(1, round(max(height, width) / 400)), max(12, round(max(height, width) / _LINES))
    pen, font, edge = ImageDraw.Draw(picture), ImageFont.load_default(size), max(1, size // 8)
    taken = np.zeros((height, width), bool)
    for value, box, (head, tail) in zip(values, np.rint(boxes).astype(int), texts, strict=True):
        for cut in range(len(head) + 1):
            text = head[: len(head) - cut] + "..." * (cut > 0) + tail
            if pen.textlength(text, font) <= width - 2 * edge:
                break
        left, top, right, bottom = (round(n) for n in pen.textbbox((0, 0), text, font, stroke_width=edge))
        for x, y in _places(box, (right - left, bottom - top), line, (width, height)):
            place = slice(y, y + bottom - top), slice(x, x + right - left)
            if not taken[place].any():
                taken[place] = True
                colour = tuple(colour_of(value).tolist())
                pen.text((x - left, y - top), text, colour, font, stroke_width=edge, stroke_fill=(0, 0, 0))
                break
    return np.asarray(picture)


def _places(box: np.ndarray, size: tuple[int, int], line: int, room: tuple[int, int]) -> list[tuple[int, int]]:
    """Return where the corner x, y of a text may lie, best first: above a box, below, then inside."""
    x_min, y_min, x_max, y_max = box.tolist()
    right, bottom = (max(whole - part, 0) for whole, part in zip(room, size, strict=True))
    columns = [min(max(x, 0), right) for x in (x_min - line, x_max + 1 + line - size[0])]
    rows = [y_min - line - size[1], y_max + 1 + line, y_min + 1, y_max - size[1]]
    rows.sort(key=lambda y: not 0 <= y <= bottom)  # a moved text would cover the box's line
    return [(x, min(max(y, 0), bottom)) for y in rows for x in columns]
