"""Write DICOM Segmentation objects (SEG) from label maps by highdicom."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from custom.images.colours import colour_of
from custom.images.dicom import DicomSeries
from custom.images.dicom_codes import coded
from custom.images.dicom_derived import NAME, first_header, missing_uid, write_object
from custom.images.dicom_planes import frame_group
from custom.version import __version__

_POSITION = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
#: The tags of every slice but the first, whose header also gives patient and study.
_SLICE = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Rows", "Columns", *_POSITION),
)


def seg_problem(series: DicomSeries) -> str | None:
    """Return why no SEG can be derived from a series, found by a trial; else None.

    The trial uses the headers of all slices but one pixel each, so it takes a fraction of a second.
    """
    lost = missing_uid(series)
    if lost is not None:
        return lost
    slices = len(series.sop_uids)
    if series.geometry is None and slices > 1:
        return f"{slices} frames without a position"
    if 1 < len(series.files) != slices:
        return f"{len(series.files)} multi-frame files"
    if slices > 1 and not series.frame_of_reference:
        return f"no FrameOfReferenceUID in a volume of {slices} slices"
    pixels = np.zeros((slices, 1, 1), np.uint8)
    pixels[0] = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _built(series, pixels, {1: "object"})
    except KeyError as error:
        return f"a kind of image that highdicom does not know: {UID(str(error.args[0])).name}"
    except Exception as error:  # headers break the standard in many ways, each with its own error
        return f"headers that highdicom cannot use: {type(error).__name__} ({' '.join(str(error).split())[:200]})"
    return None


def write_seg(path: str | Path, label: np.ndarray, names: Mapping[int, str], series: DicomSeries) -> None:
    """Write a label map as a binary SEG that refers to the images of its series.

    Segments are numbered 1..n in the order of their ids, as the standard requires. Their codes are looked up
    by name (``dicom_codes.coded``). A single picture without a position, or without a frame of
    reference, gets a SEG without positions: its reference identifies it. An id that is not in the label map becomes an
    empty segment. Arguments as in ``dicom_derived.write_object``.

    Raises:
        InputError: the shape differs, an id has no name, or no SEG can refer to the series, see
            ``seg_problem``.
    """
    allowed = "images that a DICOM SEG can be derived from"
    write_object(path, label, names, series, problem=seg_problem, allowed=allowed, build=_built)


def _built(series: DicomSeries, slices: np.ndarray, names: Mapping[int, str]) -> bytes:
    """Return the SEG's file; ``slices`` (K, rows, columns) holds the ids of ``names``."""
    table = np.zeros(max(names) + 1, np.min_scalar_type(len(names)))
    table[list(names)] = np.arange(1, len(names) + 1)
    numbers = np.ascontiguousarray(table[slices])  # highdicom scans each slice for every segment
    if len(series.files) < len(numbers):  # one multi-frame file: frame by frame
        numbers = numbers[np.argsort(series.frames)]
    text = {} if all(name.isascii() for name in names.values()) else {"specific_character_set": "ISO_IR 192"}
    headers = _headers(series)
    for header in headers:
        header.Rows, header.Columns = slices.shape[1:]  # unchanged, except in a trial
    seg = hd.seg.Segmentation(
        source_images=headers,
        pixel_array=numbers,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(n, i, name) for n, (i, name) in enumerate(names.items(), 1)],
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
        **text,
    )
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "PlaneOrientationSequence" not in shared:
        # A picture is identified by its reference. Without a thickness, highdicom cannot read its own measures.
        shared.pop("PixelMeasuresSequence", None)
        seg.PatientOrientation = headers[0].get("PatientOrientation")
    if not seg.get("FrameOfReferenceUID"):
        seg.pop("FrameOfReferenceUID", None)
        seg.pop("PositionReferenceIndicator", None)
    data = BytesIO()
    seg.save_as(data, enforce_file_format=True)
    return data.getvalue()


def _description(number: int, i: int, name: str) -> hd.seg.SegmentDescription:
    what = coded(name)
    found = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=what.category,
        segmented_property_type=what.type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            NAME, codes.DCM.ArtificialIntelligence, __version__
        ),
        display_color=hd.color.CIELabColor.from_rgb(*colour_of(i).tolist()),
    )
    if what.side is not None:
        side = hd.sr.CodedConcept.from_code(what.side)
        found.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return found


def _headers(series: DicomSeries) -> list[Dataset]:
    """Return copies of the headers with what highdicom requires."""
    first = first_header(series)
    others = []
    for header in series.headers[1:]:
        others.append(Dataset())
        for keyword in _SLICE:
            if keyword in header:
                setattr(others[-1], keyword, header[keyword].value)
        others[-1].ImageOrientationPatient = first.ImageOrientationPatient  # equal except for the last digits
    gap = 1.0 if series.geometry is None else float(np.linalg.norm(series.geometry.affine[:3, 2]))
    if not first.get("SliceThickness"):
        first.SliceThickness = f"{gap:.6g}"
    if not others:
        _share_groups(first, gap)
    if len(series.sop_uids) == 1 and not all(first.get(k) for k in ("FrameOfReferenceUID", *_POSITION)):
        # highdicom treats an empty frame of reference as missing, even if it requires one, as for a CT.
        first.FrameOfReferenceUID = first.get("FrameOfReferenceUID") or ""
        first.pop("ImagePositionPatient", None)
    return [first, *others]


def _share_groups(header: Dataset, gap: float) -> None:
    """Add the frame count and the shared groups that highdicom expects to a multi-frame header.

    Some scanners repeat the orientation and the spacing in every frame. Pictures of multi-frame kinds (fundus,
    angiography) have no groups at all; their measures here are placeholders that are removed from the result.
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
