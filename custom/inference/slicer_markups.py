"""Boxes drawn in 3D Slicer: the ROIs and lines of a markups file (``.mrk.json``)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.image import Image
from custom.json_files import read_json

_ALLOWED = 'markups of 3D Slicer: {"markups": [{"type": "ROI" or "Line", ...}]}'
#: Signs that convert a coordinate system to right-anterior-superior; older files use the numbers.
_SYSTEMS = {"LPS": (-1.0, -1.0, 1.0), "RAS": (1.0, 1.0, 1.0)}
_SYSTEMS |= {"0": _SYSTEMS["RAS"], "1": _SYSTEMS["LPS"]}
_UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
#: Voxels by which a face of an ROI may miss the centre of a voxel: rounding of the file's decimals.
_ROUNDING = 1e-4


@dataclass(frozen=True, kw_only=True)
class Region:
    """An ROI or a line.

    Attributes:
        corners: eight corners for an ROI, two points for a line, in mm, right-anterior-superior.
        name: name of the markup, or the label of its first control point, or None.
    """

    corners: tuple[tuple[float, ...], ...]
    name: str | None = None


def read_markups(path: str) -> tuple[Region, ...]:
    """Read the ROIs and lines of a file, in order.

    Raises:
        InputError: the file cannot be read, holds no markups or anything but ROIs and lines, or is malformed.
    """
    content = read_json(path, _ALLOWED)
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not markups:
        raise InputError(path, "markups", "none", _ALLOWED)
    return tuple(_region(markup, f"markups[{n}]", path) for n, markup in enumerate(markups))


def place_regions(regions: Sequence[Region], image: Image, path: str) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Convert regions to boxes in pixels of the source of an image, clipped at its border.

    An ROI becomes a box of voxels with their centre inside, at least one along each axis. For an oblique ROI this is
    its hull along the axes of the image. The points of a line are rounded to whole voxels.

    Returns:
        N boxes, and their slices along the third axis if each is a line in one slice of a volume. Boxes have 4
        numbers in a picture and with slices, else 6.

    Raises:
        InputError: a region lies outside the image.
    """
    inverse, sizes = np.linalg.inv(image.grid.affine), np.array(image.grid.shape)
    lows, highs = [], []
    for n, region in enumerate(regions):
        low, high = _rounded(np.array(region.corners) @ inverse[:3, :3].T + inverse[:3, 3])
        if (high < 0).any() or (low > sizes - 1).any():
            found = f"voxels {low.astype(int).tolist()} to {high.astype(int).tolist()} of {image.path}"
            raise InputError(path, f"markups[{n}]", found, f"a part of its {' x '.join(map(str, sizes))} voxels")
        lows.append(np.clip(low, 0, sizes - 1))
        highs.append(np.clip(high, 0, sizes - 1))
    ends = np.stack([lows, highs])  # 2xNx3
    if image.kind == "picture":
        flat = 2 if image.flat_axis is None else image.flat_axis
        return np.concatenate(np.delete(ends, flat, axis=2), axis=1), None
    lines = all(len(region.corners) == 2 for region in regions)
    if lines and (ends[0, :, 2] == ends[1, :, 2]).all():
        return np.concatenate(ends[:, :, :2], axis=1), tuple(int(z) for z in ends[0, :, 2])
    return np.concatenate(ends, axis=1), None


def _rounded(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last voxel along each axis of corners Mx3 in voxels."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle = np.rint((low + high) / 2)
    if len(corners) == 2:
        close = high - low < 0.5  # both in one slice, wherever it was drawn between two centres
        return np.where(close, middle, np.rint(low)), np.where(close, middle, np.rint(high))
    first, last = np.ceil(low - _ROUNDING), np.floor(high + _ROUNDING)
    return np.where(first > last, middle, first), np.where(first > last, middle, last)


def _region(markup: Any, field: str, path: str) -> Region:
    kind = markup.get("type") if isinstance(markup, dict) else None
    if kind not in ("ROI", "Line"):
        raise InputError(path, f"{field}: type", repr(kind), "ROI, Line")
    signs = _SYSTEMS.get(str(markup.get("coordinateSystem", "LPS")))
    if signs is None:
        raise InputError(path, f"{field}: coordinateSystem", repr(markup["coordinateSystem"]), "LPS, RAS")
    unit = markup.get("coordinateUnits", "mm")
    if (unit[:1] if isinstance(unit, list) else [unit]) != ["mm"]:
        raise InputError(path, f"{field}: coordinateUnits", repr(unit), "mm")
    points = markup.get("controlPoints", [])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise InputError(path, f"{field}: controlPoints", str(points)[:80], "a list of points")
    corners = _box(markup, field, path) if kind == "ROI" else _line(points, field, path)
    names = [markup.get("name"), *(point.get("label") for point in points[:1])]
    name = next((name.strip() for name in names if isinstance(name, str) and name.strip()), None)
    return Region(corners=tuple(tuple((corner * signs).tolist()) for corner in corners), name=name)


def _box(markup: Mapping[str, Any], field: str, path: str) -> np.ndarray:
    """Return the corners of an ROI: the columns of its orientation are its axes."""
    center = _vector(markup.get("center"), 3, f"{field}: center", path)
    size = _vector(markup.get("size"), 3, f"{field}: size", path)
    if (size <= 0).any():
        raise InputError(path, f"{field}: size", size.tolist(), "three positive numbers in mm")
    axes = _vector(markup.get("orientation", _UPRIGHT), 9, f"{field}: orientation", path).reshape(3, 3)
    return center + np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * size @ axes.T


def _line(points: Sequence[Mapping[str, Any]], field: str, path: str) -> np.ndarray:
    if len(points) != 2:
        raise InputError(path, f"{field}: controlPoints", f"{len(points)} points", "the two ends of a line")
    return np.stack([_vector(p.get("position"), 3, f"{field}: controlPoints: position", path) for p in points])


def _vector(value: Any, count: int, field: str, path: str) -> np.ndarray:
    numbers = isinstance(value, (list, tuple)) and all(_is_number(v) for v in value)
    if not numbers or len(value) != count:
        raise InputError(path, field, str(value)[:80], f"{count} numbers")
    return np.array(value, np.float64)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) < 1e9  # also False for NaN
