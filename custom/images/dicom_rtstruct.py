"""Radiotherapy structure sets (RTSTRUCT): outlines in mm, filled on the grid of a series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset

from custom.errors import InputError
from custom.images.decoding import decoding
from custom.images.dicom import DicomSeries
from custom.images.dicom_files import read_dataset, text_of
from custom.limits import BYTES

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_FLAT = 0.1  # slices: how far the points of one outline may lie apart
_SAME_PLANE = 3  # digits of the slice number in which outlines of one plane agree
_EDGE = 0.01  # pixels: centres this near to an outline count as on it; files round to hundredths of a mm
_AT_ONCE = 2**24  # pairs of a row and an edge compared at a time


def read_rtstruct(path: str | Path, series: DicomSeries) -> tuple[np.ndarray, dict[int, str]]:
    """Fill the closed outlines of an RTSTRUCT on the grid of a series.

    A pixel belongs to a structure if its centre lies inside or on the outlines of one plane by the even-odd rule, so
    an outline within another one is a hole, and keyholes need no care; outlines through pixel centres keep those
    pixels. Outlines between two slices go to the nearer one. Where structures overlap, the smaller one lies on top.
    Structures without closed outlines (points, open lines) are omitted. Tags: DICOM PS3.3, C.8.8.5 and C.8.8.6.

    Returns:
        (Z, H, W) uint8 or uint16, canonical; id -> ROIName. Ids are 1..n in the order of StructureSetROISequence.

    Raises:
        InputError: the file cannot be read; a structure lies in another frame of reference, an outline outside
            the stack (more than half a gap beyond its ends) or across slices; or no structure has closed outlines.
    """
    path = str(path)
    if series.geometry is None:
        raise InputError(path, "series", "images without a position", "a volume, which outlines in mm can be drawn on")
    names: dict[int, str] = {}
    patches: dict[int, list[tuple[tuple[int, slice, slice], np.ndarray]]] = {}
    held = 0
    with decoding(path, "DICOM RTSTRUCT"):
        dataset = read_dataset(path)
        outlines = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or []}
        for roi in dataset.get("StructureSetROISequence") or []:
            number = int(roi.ROINumber)
            contours = _closed(outlines.get(number))
            if not contours:
                continue
            name = text_of(roi, "ROIName").strip() or f"structure {number}"
            _check_frame(path, roi, name, series)
            i = len(names) + 1
            names[i], patches[i] = name, []
            for place, mask in _fill(path, contours, name, series):
                patches[i].append((place, mask))
                held += mask.nbytes
                BYTES.check(held, path, "ContourData")
    if not names:
        raise InputError(path, "ROIContourSequence", "no closed outlines", "at least one CLOSED_PLANAR contour")
    label = np.zeros(series.slices_shape, np.min_scalar_type(len(names)))
    sizes = {i: sum(int(mask.sum()) for _, mask in found) for i, found in patches.items()}
    for i in sorted(names, key=lambda i: (-sizes[i], i)):
        for place, mask in patches[i]:
            label[place][mask] = i
    return series.to_canonical(label), names


def _closed(item: Dataset | None) -> list[Dataset]:
    contours = [] if item is None else item.get("ContourSequence") or []
    return [contour for contour in contours if contour.get("ContourGeometricType") in _CLOSED]


def _check_frame(path: str, roi: Dataset, name: str, series: DicomSeries) -> None:
    frame = text_of(roi, "ReferencedFrameOfReferenceUID")
    if frame and series.frame_of_reference and frame != series.frame_of_reference:
        allowed = f"{series.frame_of_reference} of series {series.uid}"
        raise InputError(path, f"ReferencedFrameOfReferenceUID of {name!r}", frame, allowed)


def _fill(
    path: str, contours: list[Dataset], name: str, series: DicomSeries
) -> Iterator[tuple[tuple[int, slice, slice], np.ndarray]]:
    """Yield each filled plane of a structure: its place in the stored slices, and the mask there."""
    slices, *size = series.slices_shape
    planes = defaultdict(list)  # outlines of one plane make holes in each other, those of different planes do not
    for contour in contours:
        points = np.asarray(contour.ContourData, dtype=np.float64)
        if points.size % 3 or not np.isfinite(points).all():
            raise InputError(path, f"ContourData of {name!r}", f"{points.size} numbers", "x, y, z of every point")
        points = points.reshape(-1, 3) * (-1, -1, 1)  # LPS -> RAS
        points = np.linalg.solve(series.geometry.affine, np.c_[points, np.ones(len(points))].T)[:3].T  # column, row, z
        place = points[:, 2]
        if np.ptp(place) > _FLAT:
            found = f"an outline of {name!r} that spans {np.ptp(place):.3g} slices"
            raise InputError(path, "ContourData", found, "outlines parallel to the slices")
        z = float(place.mean())
        if not -0.5 <= z <= slices - 0.5:
            found = f"an outline of {name!r} at slice number {z:.4g}"
            raise InputError(path, "ContourData", found, f"-0.5 to {slices - 0.5}, half a gap beyond {slices} slices")
        planes[round(z, _SAME_PLANE)].append(points[:, 1::-1])  # row, column
    for z, outlines in planes.items():
        (row, column), mask = fill_outlines(outlines, tuple(size))
        if mask.any():
            height, width = mask.shape
            nearest = min(int(np.floor(z + 0.5)), slices - 1)
            yield (nearest, slice(row, row + height), slice(column, column + width)), mask


def fill_outlines(outlines: list[np.ndarray], size: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
    """Fill closed outlines by the even-odd rule; pixels whose centre lies on one count as inside.

    About ten times faster than ``skimage.draw.polygon``, which tests every pixel against every edge and has no
    holes; the outline of a body would take it minutes.

    Outlines are each (n, 2), row and column; whole numbers are pixel centres. Anything outside of ``size``, the rows
    and columns of the image, is cut off.

    Returns:
        (row, column) of the first pixel of the mask, and the mask (h, w), cut to the outlines' bounding box.
    """
    ends = [(outline, np.roll(outline, -1, axis=0)) for outline in outlines]
    first, last = (np.concatenate(side) for side in zip(*ends, strict=True))
    low = np.clip(np.floor(first.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(first.max(axis=0)) + 1, low, size).astype(int)
    height, width = high - low
    mask = np.zeros((height, width), dtype=bool)
    rows = np.arange(height)[:, None]
    part = max(1, _AT_ONCE // max(height, 1))
    for shift in ((-_EDGE, -_EDGE), (-_EDGE, _EDGE), (_EDGE, -_EDGE), (_EDGE, _EDGE)):
        toggles = np.zeros((height, width + 1), np.uint8)  # may overflow: only the parity counts
        for start in range(0, len(first), part):
            edges = slice(start, start + part)
            (row0, column0), (row1, column1) = (first[edges] - low + shift).T, (last[edges] - low + shift).T
            row, edge = np.nonzero((row0 <= rows) != (row1 <= rows))  # edges that the line of pixel centres crosses
            slope = (column1 - column0)[edge] / (row1 - row0)[edge]
            crossing = np.ceil(column0[edge] + (row - row0[edge]) * slope)
            np.add.at(toggles, (row, np.clip(crossing, 0, width).astype(int)), 1)
        mask |= np.cumsum(toggles, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1
    return (int(low[0]), int(low[1])), mask
