"""Write radiotherapy structure sets (RTSTRUCT): the outlines of a label map, in mm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from scipy.ndimage import find_objects

from custom.images.colours import colour_of
from custom.images.dicom import DicomSeries
from custom.images.dicom_derived import NAME, PATIENT_AND_STUDY, first_header, missing_uid, write_object
from custom.images.dicom_files import text_of
from custom.version import __version__

_COPIED = (  # if they are known
    *("SpecificCharacterSet", "StudyDescription", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "DeidentificationMethodCodeSequence"),
)
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, the only class of a study that can be referred to


def rtstruct_problem(series: DicomSeries) -> str | None:
    """Return why no RTSTRUCT can be drawn on a series, or None."""
    if series.geometry is None:
        return "images without a position, where outlines in mm cannot be placed"
    return missing_uid(series) or (None if series.frame_of_reference else "no FrameOfReferenceUID")


def write_rtstruct(path: str | Path, label: np.ndarray, names: Mapping[int, str], series: DicomSeries) -> None:
    """Write a label map as a structure set: the outlines of each object in each slice, along the edges of the pixels.

    A hole is joined to its outline by a channel without width (a keyhole), as the standard requires, so that every rule
    of filling gives the same mask; ``read_rtstruct`` restores each pixel. Structures are numbered 1..n in the order
    of their ids; an empty one has no outlines. Arguments as in ``dicom_derived.write_object``.

    Raises:
        InputError: the shape differs, an id has no name, or ``rtstruct_problem``.
    """
    allowed = "images with a place in the patient"
    write_object(path, label, names, series, problem=rtstruct_problem, allowed=allowed, build=_built)


def _built(series: DicomSeries, slices: np.ndarray, names: Mapping[int, str]) -> bytes:
    places = find_objects(slices, max_label=max(names))
    images = _images(series)
    dataset = _structure_set(series, images)
    for number, (i, name) in enumerate(names.items(), 1):
        roi = _item(ROINumber=number, ReferencedFrameOfReferenceUID=series.frame_of_reference, ROIName=name)
        roi.ROIGenerationAlgorithm = "SEMIAUTOMATIC"
        drawn = _item(ROIDisplayColor=colour_of(i).tolist(), ReferencedROINumber=number)
        if places[i - 1] is not None:
            drawn.ContourSequence = _contours(slices, i, places[i - 1], images, series.geometry.affine)
        observed = _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="")
        observed.ROIInterpreter = None
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
        dataset.RTROIObservationsSequence.append(observed)
    if not all(name.isascii() for name in names.values()):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    data = BytesIO()
    dataset.save_as(data, enforce_file_format=True)
    return data.getvalue()


def _item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def _images(series: DicomSeries) -> list[Dataset]:
    """Return a reference to the image of each slice."""
    classes = {text_of(header, "SOPInstanceUID"): header.SOPClassUID for header in series.headers}
    found = []
    for uid, frame in zip(series.sop_uids, series.frames, strict=True):
        found.append(_item(ReferencedSOPClassUID=classes[uid], ReferencedSOPInstanceUID=uid))
        if len(series.files) < len(series.sop_uids):
            found[-1].ReferencedFrameNumber = frame
    return found


def _structure_set(series: DicomSeries, images: list[Dataset]) -> Dataset:
    """Return a structure set without structures: the patient, the study and the images."""
    header, now = first_header(series), datetime.now()
    dataset = _item(**{keyword: header[keyword].value for keyword in PATIENT_AND_STUDY})
    for keyword in _COPIED:
        if header.get(keyword):
            setattr(dataset, keyword, header[keyword].value)
    whole = {image.ReferencedSOPInstanceUID: image.ReferencedSOPClassUID for image in images}
    files = [_item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid) for uid, kind in whole.items()]
    study = _item(ReferencedSOPClassUID=_STUDY_CLASS, ReferencedSOPInstanceUID=header.StudyInstanceUID)
    study.RTReferencedSeriesSequence = [_item(SeriesInstanceUID=series.uid, ContourImageSequence=files)]
    frame = _item(FrameOfReferenceUID=series.frame_of_reference, RTReferencedStudySequence=[study])
    for keyword, value in {
        "SOPClassUID": RTStructureSetStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": header.StudyInstanceUID,
        "SeriesInstanceUID": generate_uid(),
        "SeriesNumber": 1001,
        "SeriesDescription": f"{NAME} structures",
        "Modality": "RTSTRUCT",
        "Manufacturer": NAME,
        "ManufacturerModelName": NAME,
        "SoftwareVersions": __version__,
        "OperatorsName": None,
        "InstanceNumber": 1,
        "StructureSetLabel": NAME,
        "StructureSetDate": f"{now:%Y%m%d}",
        "StructureSetTime": f"{now:%H%M%S}",
        "ApprovalStatus": "UNAPPROVED",
        "FrameOfReferenceUID": series.frame_of_reference,
        "PositionReferenceIndicator": header.get("PositionReferenceIndicator"),
        "ReferencedFrameOfReferenceSequence": [frame],
        "StructureSetROISequence": [],
        "ROIContourSequence": [],
        "RTROIObservationsSequence": [],
    }.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # explicit lengths end at 65,535 bytes per outline
    return dataset


def _contours(
    slices: np.ndarray, i: int, place: tuple[slice, slice, slice], images: list[Dataset], affine: np.ndarray
) -> list[Dataset]:
    """Return the outlines of an object that lies in a part of the slices."""
    first, row, column = (side.start for side in place)
    found = []
    for z, mask in enumerate(slices[place] == i, first):
        for corners in outlines(mask):
            index = np.c_[corners[:, ::-1] + (column, row), np.full(len(corners), z), np.ones(len(corners))]
            points = (index @ affine.T)[:, :3] * (-1, -1, 1)  # RAS -> LPS
            contour = _item(ContourImageSequence=[images[z]], ContourGeometricType="CLOSED_PLANAR")
            contour.NumberOfContourPoints = len(points)
            numbers = "\\".join(f"{x:.10g}" for x in points.ravel().tolist())
            contour.add(DataElement("ContourData", "DS", numbers, already_converted=True))  # no check of each number
            found.append(contour)
    return found


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outlines of a mask along the edges of its pixels, with every hole joined to an outline by a keyhole.

    Each is (n, 2), row and column of the corners; pixel centres are whole numbers, so corners are halves. Pixels that
    meet only at a corner are separate.
    """
    loops = _loops(mask)
    at = {corner: n for n, loop in enumerate(loops) for corner in loop}
    holes = {n for n, loop in enumerate(loops) if _area(loop) < 0}
    for n in sorted(holes, key=lambda n: min(loops[n]), reverse=True):  # everything left of a hole is not yet joined
        hole, (row, column) = loops[n], min(loops[n])
        left = next(c for c in range(column - 1, -1, -1) if (row, c) in at)
        outer = loops[at[row, left]]
        cut, first = outer.index((row, left)), hole.index((row, column))
        outer[cut:cut] = [(row, left), *hole[first:], *hole[: first + 1]]
    return [_corners(loop) for n, loop in enumerate(loops) if n not in holes]


def _loops(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Return the closed paths around a mask, which lies on their right; pixel (r, c) begins at (r, c)."""
    padded = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    # Side of a pixel without a neighbour -> where its edge begins, and the direction along it.
    for side, begin, way in (
        ((-1, 0), (0, 0), (0, 1)),
        ((0, 1), (0, 1), (1, 0)),
        ((1, 0), (1, 1), (0, -1)),
        ((0, -1), (1, 0), (-1, 0)),
    ):
        edges = padded & ~np.roll(padded, (-side[0], -side[1]), (0, 1))
        for row, column in (np.argwhere(edges) - 1 + begin).tolist():
            steps[row, column].append(way)
    loops = []
    while steps:
        start = corner = next(iter(steps))
        loop, way = [], None
        while corner != start or way is None:
            loop.append(corner)
            ways = steps[corner]
            right = None if way is None else (way[1], -way[0])  # stay with the same pixel where two pixels meet
            way = ways.pop(ways.index(right) if right in ways else 0)
            if not ways:
                del steps[corner]
            corner = (corner[0] + way[0], corner[1] + way[1])
        loops.append(loop)
    return loops


def _area(loop: list[tuple[int, int]]) -> float:
    """Return the area inside a path; negative around a hole."""
    row, column = np.array(loop).T
    return float(np.sum(column * (np.roll(row, -1) - row)))


def _corners(loop: list[tuple[int, int]]) -> np.ndarray:
    """Drop the points along straight lines, and shift to coordinates of pixel centres."""
    points = np.array(loop)
    turns = (np.roll(points, -1, 0) - points != points - np.roll(points, 1, 0)).any(1)
    return points[turns] - 0.5
