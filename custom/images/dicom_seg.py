"""DICOM Segmentation objects (SEG): read onto the grid of a series, and written from a label map by highdicom.

highdicom does not read here: it insists on tags that many files lack, among them some that it wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.pixels import pixel_array
from pydicom.sr.codedict import codes

from custom.errors import InputError
from custom.files import write_whole
from custom.images.decoding import as_label, decoding
from custom.images.dicom import DicomSeries
from custom.images.dicom_files import read_dataset, text_of
from custom.images.dicom_pixels import check_frames
from custom.images.dicom_planes import Plane, frame_group, planes_of
from custom.version import __version__

NAME = "MCP-MedSAM"
_ON_GRID = 0.2  # voxels: how far a segmented pixel may lie from the voxel it is given to
_REQUIRED = (  # may be empty in an object that is derived, but must be there; anonymised files lack them
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def read_seg(path: str | Path, series: DicomSeries) -> tuple[np.ndarray, dict[int, str]]:
    """Read a SEG as a label map on the grid of a series.

    Each frame is placed by its position and orientation, so it may be cropped, turned or reversed against the series
    as long as pixels fall on voxels; a frame without a position is placed by the source image it refers to. Binary,
    labelmap and fractional objects are read; a fractional pixel belongs to a segment from half of the maximum on.
    Where segments overlap, the smaller one lies on top.

    Args:
        path: the SEG file.
        series: the images it belongs to.

    Returns:
        (Z, H, W) uint8 or uint16, canonical, whose ids are the segment numbers; and segment number -> SegmentLabel,
        for every segment of the file.

    Raises:
        InputError: the file cannot be read, or it lies in another frame of reference or on another grid.
    """
    with decoding(path, "DICOM SEG"):  # pydicom finds malformed values when they are asked for
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
    label = np.zeros(series.slices_shape, np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16)
    for plane in planes:
        frame = _pixels(seg, plane)
        rows, columns = np.nonzero(frame)
        if len(rows):
            column, row, z = voxels = _voxels(seg, plane, series)[:3] @ np.stack([columns, rows, np.ones_like(rows)])
            if voxels.min() < 0 or (voxels.max(axis=1) >= label.shape[::-1]).any():
                raise InputError(path, f"frame {plane.frame}", "foreground outside of the series", "the series' grid")
            label[z, row, column] = frame[rows, columns] if is_map else numbers[plane.frame]
    return series.to_canonical(label), names


def write_seg(path: str | Path, label: np.ndarray, names: Mapping[int, str], series: DicomSeries) -> None:
    """Write a label map as a binary SEG that refers to the images of its series.

    Segments are numbered 1..n in the order of their ids, since the standard asks for that; the property codes are
    the generic "Tissue". The file appears whole or not at all.

    Args:
        path: file to write.
        label: (Z, H, W) integers, canonical, 0 is background.
        names: id -> name (1..64 characters); every id of ``label``, and others, which become empty segments.
        series: the segmented images; their headers are read again from ``series.files``.

    Raises:
        InputError: the shape differs, an id has no name, a source file is gone, or the series is of a kind that no
            SEG can refer to: a cine loop, or several multi-frame files.
    """
    path = Path(path)
    label = as_label(label, path)
    numbers = _check_label(path, label, names, series)
    headers = _source_headers(series)
    table = np.zeros(max(numbers) + 1, np.uint8 if len(numbers) <= np.iinfo(np.uint8).max else np.uint16)
    table[list(numbers)] = list(numbers.values())
    slices = np.ascontiguousarray(series.to_slices(table[label]))  # highdicom scans each slice for every segment
    if len(series.files) < len(slices):  # frame by frame as in the file
        slices = slices[np.argsort(series.frames)]
    algorithm = hd.AlgorithmIdentificationSequence(NAME, codes.DCM.ArtificialIntelligence, __version__)
    try:
        seg = hd.seg.Segmentation(
            source_images=headers,
            pixel_array=slices,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                hd.seg.SegmentDescription(
                    segment_number=number,
                    segment_label=names[i],
                    segmented_property_category=codes.SCT.Tissue,
                    segmented_property_type=codes.SCT.Tissue,
                    algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
                    algorithm_identification=algorithm,
                )
                for i, number in numbers.items()
            ],
            series_instance_uid=hd.UID(),
            series_number=1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=NAME,
            manufacturer_model_name=NAME,
            software_versions=__version__,
            device_serial_number="0",
            content_label="SEGMENTATION",
            series_description=f"{NAME} segmentation",
        )
    except Exception as error:  # headers break the standard in many ways, and each trips elsewhere
        found = f"{type(error).__name__} ({' '.join(str(error).split())[:200]})"
        raise InputError(series.files[0], "header", found, "images that a DICOM SEG can be derived from") from error
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "PlaneOrientationSequence" not in shared:
        # A picture is found by its reference. Without a thickness, highdicom would not read its own measures again.
        shared.pop("PixelMeasuresSequence", None)
    data = BytesIO()
    seg.save_as(data, enforce_file_format=True)
    write_whole(path, lambda file: file.write(data.getvalue()))


def _pixels(seg: Dataset, plane: Plane) -> np.ndarray:
    """Return a frame (rows, columns): segment numbers of a labelmap, else whether a pixel belongs."""
    frame = pixel_array(seg, index=plane.frame - 1)
    if seg.get("SegmentationType") == "LABELMAP":
        return frame
    return frame >= (seg.MaximumFractionalValue / 2 if seg.get("SegmentationType") == "FRACTIONAL" else 1)


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


def _check_label(path: Path, label: np.ndarray, names: Mapping[int, str], series: DicomSeries) -> dict[int, int]:
    """Return id -> segment number, for every id that has a name."""
    if label.shape != series.array.shape[:3]:
        raise InputError(path, "label", f"shape {label.shape}", f"{series.array.shape[:3]} as the series")
    ids = sorted(int(i) for i in names)
    if not ids or ids[0] < 1:
        raise InputError(path, "names", f"ids {ids}", "at least one id, from 1 up")
    unnamed = sorted(set(np.unique(label).tolist()) - {0, *ids})
    if unnamed:
        raise InputError(path, "names", f"no name for ids {unnamed[:8]}", "a name for every id of the label map")
    for i, name in names.items():
        if not 1 <= len(name) <= 64:
            raise InputError(path, f"names[{i}]", f"{len(name)} characters", "1 to 64 characters")
    if series.geometry is None and len(series.array) > 1:
        raise InputError(path, "series", f"{len(series.array)} frames without a position", "a volume or one picture")
    if 1 < len(series.files) != len(series.sop_uids):
        raise InputError(path, "series", f"{len(series.files)} multi-frame files", "single files, or one such file")
    return {i: number for number, i in enumerate(ids, 1)}


def _source_headers(series: DicomSeries) -> list[Dataset]:
    """Read the headers again and fill in what highdicom insists on."""
    headers = []
    for file in series.files:
        with decoding(file, "DICOM file"):
            headers.append(read_dataset(file, pixels=False))
    first = headers[0]
    gap = 1.0 if series.geometry is None else float(np.linalg.norm(series.geometry.affine[:3, 2]))
    for header in headers:
        for keyword in _REQUIRED:
            if keyword not in header:
                setattr(header, keyword, None)
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{gap:.6g}"
        if series.geometry is not None and "ImageOrientationPatient" in header:
            header.ImageOrientationPatient = first.ImageOrientationPatient  # the same but for the last digits
    if len(headers) == 1:
        _share_groups(first, gap)
    return headers


def _share_groups(header: Dataset, gap: float) -> None:
    """Give a header of a multi-frame kind the frame count and the shared groups that highdicom looks for.

    Some scanners repeat the orientation and the spacing in every frame. Pictures of multi-frame kinds (fundus,
    angiography) have no groups at all; their measures here are a stand-in that is taken out of the result again.
    """
    header.NumberOfFrames = header.get("NumberOfFrames") or 1
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        group = frame_group(header, 1, keyword)
        if group is not None:
            setattr(shared, keyword, [group])
    if not shared.get("PixelMeasuresSequence"):
        shared.PixelMeasuresSequence = [Dataset()]
        shared.PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    if not shared.PixelMeasuresSequence[0].get("SliceThickness"):
        shared.PixelMeasuresSequence[0].SliceThickness = f"{gap:.6g}"
    header.SharedFunctionalGroupsSequence = [shared]
