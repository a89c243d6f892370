"""Read DICOM Segmentation objects (SEG) onto the grid of a series.

highdicom is not used here: it requires tags that many files lack, even some it wrote itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.pixels import pixel_array

from custom.errors import InputError
from custom.images.decoding import decoding
from custom.images.dicom import DicomSeries
from custom.images.dicom_files import read_dataset, text_of
from custom.images.dicom_pixels import check_frames
from custom.images.dicom_planes import Plane, frame_group, planes_of

_ON_GRID = 0.2  # voxels: how far a segmented pixel may lie from the voxel it is assigned to


def read_seg(path: str | Path, series: DicomSeries) -> tuple[np.ndarray, dict[int, str]]:
    """Read a SEG as a label map on the grid of a series.

    Each frame is placed by its position and orientation, so it may be cropped, turned or reversed in the series
    as long as pixels fall on voxels; a frame without a position is placed by the source image it refers to. Binary,
    labelmap and fractional objects are read; a fractional pixel counts from half of the maximum on.
    Where segments overlap, the smaller one lies on top.

    Returns:
        (Z, H, W) uint8 or uint16, canonical, whose ids are the segment numbers; and segment number -> SegmentLabel,
        for every segment of the file.

    Raises:
        InputError: the file cannot be read, or it lies in another frame of reference or on another grid.
    """
    with decoding(path, "DICOM SEG"):  # pydicom checks values when they are accessed
        return _read(str(path), series)


def _read(path: str, series: DicomSeries) -> tuple[np.ndarray, dict[int, str]]:
    seg = read_dataset(path)
    if seg.get("SegmentSequence") is None:
        raise InputError(path, "SegmentSequence", "nothing", "a DICOM SEG")
    planes = planes_of(seg, path)
    check_frames(seg, path)
    names = {int(item.SegmentNumber): text_of(item, "SegmentLabel").strip() for item in seg.SegmentSequence}
    names = {number: name or f"segment {number}" for number, name in names.items() if number > 0}
    frame_of_reference = text_of(seg, "FrameOfReferenceUID")
    if frame_of_reference and series.frame_of_reference and frame_of_reference != series.frame_of_reference:
        allowed = f"{series.frame_of_reference} of series {series.uid}"
        raise InputError(path, "FrameOfReferenceUID", frame_of_reference, allowed)
    is_map = seg.get("SegmentationType") == "LABELMAP"
    numbers = {plane.frame: 0 if is_map else _segment_number(seg, plane, names) for plane in planes}
    if not is_map:  # largest first, so that the smaller one is painted over it
        sizes: Counter[int] = Counter()
        for plane in planes:
            sizes[numbers[plane.frame]] += int(np.count_nonzero(_pixels(seg, plane)))
        planes.sort(key=lambda plane: (-sizes[numbers[plane.frame]], numbers[plane.frame]))
    highest = 2 ** int(seg.get("BitsAllocated") or 16) - 1 if is_map else max(names, default=0)
    label = np.zeros(series.slices_shape, np.min_scalar_type(highest))
    for plane in planes:
        frame = _pixels(seg, plane)
        rows, columns = np.nonzero(frame)
        if len(rows):
            column, row, z = voxels = _voxels(seg, plane, series)[:3] @ np.stack([columns, rows, np.ones_like(rows)])
            if voxels.min() < 0 or (voxels.max(axis=1) >= label.shape[::-1]).any():
                raise InputError(path, f"frame {plane.frame}", "foreground outside of the series", "the series' grid")
            label[z, row, column] = frame[rows, columns] if is_map else numbers[plane.frame]
    return series.to_canonical(label), names


def _pixels(seg: Dataset, plane: Plane) -> np.ndarray:
    """Return a frame (rows, columns): segment numbers of a labelmap, else whether each pixel belongs to the segment."""
    syntax = seg.file_meta.TransferSyntaxUID
    if seg.get("BitsAllocated") == 1 and syntax.is_little_endian and not syntax.is_encapsulated:
        return _unpacked(seg, plane)
    frame = pixel_array(seg, index=plane.frame - 1)
    if seg.get("SegmentationType") == "LABELMAP":
        return frame
    return frame >= (seg.MaximumFractionalValue / 2 if seg.get("SegmentationType") == "FRACTIONAL" else 1)


def _unpacked(seg: Dataset, plane: Plane) -> np.ndarray:
    """Return a frame of single bits, (rows, columns) bool.

    Frames follow each other without padding, so one may begin within a byte. pydicom can only read such frames all at
    once, at eight times their size.
    """
    count = plane.size[0] * plane.size[1]
    first = (plane.frame - 1) * count
    data = np.frombuffer(seg.PixelData, np.uint8)[first // 8 : (first + count + 7) // 8]
    bits = np.unpackbits(data, bitorder="little")[first % 8 :][:count]
    return bits.reshape(plane.size) == 1


def _segment_number(seg: Dataset, plane: Plane, names: Mapping[int, str]) -> int:
    group = frame_group(seg, plane.frame, "SegmentIdentificationSequence")
    number = None if group is None else group.get("ReferencedSegmentNumber")
    if number not in names:
        raise InputError(plane.file, f"frame {plane.frame}", f"segment {number}", "a segment of the SegmentSequence")
    return int(number)


def _voxels(seg: Dataset, plane: Plane, series: DicomSeries) -> np.ndarray:
    """Return 4x3 whole numbers, (column, row, 1) of a frame -> (column, row, slice, 1) of the series."""
    if plane.matrix is None or series.geometry is None:
        return _voxels_by_source(seg, plane, series)
    exact = np.linalg.solve(series.geometry.affine, plane.matrix)
    whole = np.rint(exact)
    steps = np.abs(whole[:3, :2])
    rows, columns = plane.size
    corners = np.array([[0, columns - 1, 0], [0, 0, rows - 1], [1, 1, 1]])
    off = np.abs((exact - whole) @ corners).max()
    if off > _ON_GRID or (steps.sum(axis=0) != 1).any() or steps.sum(axis=1).max() > 1:
        found = f"frame {plane.frame}, whose pixels are up to {off:.3g} voxels off"
        raise InputError(plane.file, "grid", found, f"pixels on the voxels of series {series.uid}")
    return whole.astype(np.int64)


def _voxels_by_source(seg: Dataset, plane: Plane, series: DicomSeries) -> np.ndarray:
    places = {pair: z for z, pair in enumerate(zip(series.sop_uids, series.frames, strict=True))}
    derivation = frame_group(seg, plane.frame, "DerivationImageSequence")
    sources = [] if derivation is None else derivation.get("SourceImageSequence") or []
    for source in sources:
        key = (text_of(source, "ReferencedSOPInstanceUID"), int(source.get("ReferencedFrameNumber") or 1))
        if key in places:
            break
    else:
        found = f"frame {plane.frame} with neither a position nor a source image in the series"
        raise InputError(plane.file, "DerivationImageSequence", found, f"an image of series {series.uid}")
    if plane.size != series.slices_shape[1:]:
        raise InputError(plane.file, "Rows, Columns", plane.size, f"{series.slices_shape[1:]} as the series")
    return np.array([[1, 0, 0], [0, 1, 0], [0, 0, places[key]], [0, 0, 1]])
