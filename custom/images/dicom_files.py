"""List the DICOM series below a folder by the headers of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from custom.errors import InputError
from custom.files import files_below
from custom.images.decoding import decoding
from custom.limits import BYTES, DEFLATE_RATIO

#: Modalities whose objects have rows and columns, yet are no images to segment.
NO_IMAGES = ("SEG", "RTDOSE")
_DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR
_LISTED = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "PatientID",
    "SeriesDescription",
    "FrameOfReferenceUID",
    "Rows",
    "ImagePositionPatient",
    "SharedFunctionalGroupsSequence",
)


@dataclass(frozen=True, kw_only=True)
class SeriesFiles:
    """The files of one SeriesInstanceUID, as their headers tell.

    Attributes:
        uid: SeriesInstanceUID.
        kind: DICOM's Modality, e.g. ``"CT"``, ``"SEG"`` or ``"RTSTRUCT"``.
        files: paths, sorted.
        sop_uids: SOPInstanceUID of each file.
        patient: PatientID, may be empty.
        description: SeriesDescription, may be empty.
        frame_of_reference: FrameOfReferenceUID, may be empty.
        image: it holds images that ``read_series`` takes.
        positioned: its images lie in the patient, so that they make one volume.
    """

    uid: str
    kind: str
    files: tuple[str, ...]
    sop_uids: tuple[str, ...]
    patient: str
    description: str
    frame_of_reference: str
    image: bool
    positioned: bool


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is in a folder.

    Attributes:
        series: one entry for each SeriesInstanceUID, in the order of their first files.
        unreadable: one error for each DICOM file whose header cannot be read.
        others: number of files that are not DICOM, and of DICOMDIRs.
    """

    series: tuple[SeriesFiles, ...]
    unreadable: tuple[InputError, ...]
    others: int


def list_series(folder: str | Path) -> Listing:
    """List the series below a folder from the files' headers; no pixels are read.

    Files without the ``DICM`` mark are not DICOM; hidden files count too, whatever they are called.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "folder", "no such folder", "a folder with DICOM files")
    found: dict[str, list[tuple[str, Dataset]]] = {}
    unreadable, others = [], 0
    for path in files_below(folder):
        try:
            header = read_header(path, tags=_LISTED)
            with decoding(path, "DICOM file"):
                list(header or ())  # pydicom finds malformed values when they are asked for
        except InputError as error:
            unreadable.append(error)
            continue
        if header is None:
            others += 1
        else:
            found.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
    series = tuple(_entry(uid, members) for uid, members in found.items())
    return Listing(series=series, unreadable=tuple(unreadable), others=others)


def read_dataset(path: str | Path, *, pixels: bool = True, tags: Sequence[str] | None = None) -> Dataset:
    """Read a DICOM file.

    Args:
        path: the file.
        pixels: read it to its end; else as far as its pixels.
        tags: keywords of the elements to read; None reads all.

    Raises:
        InputError: a deflated file could unpack to more than ``custom.limits`` allows.
        Exception: whatever pydicom trips over, for ``decoding``.
    """
    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        BYTES.check(Path(path).stat().st_size * DEFLATE_RATIO, path, "deflated file, unpacked")
    return dcmread(path, stop_before_pixels=not pixels, specific_tags=None if tags is None else list(tags))


def read_header(path: str, tags: Sequence[str] | None = None) -> Dataset | None:
    """Return the header without pixels, or None for a file that is not DICOM or is a DICOMDIR."""
    with decoding(path, "DICOM file"):
        try:
            header = read_dataset(path, pixels=False, tags=tags)
        except InvalidDicomError:
            return None
        if header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
            return None
        if not header.get("SeriesInstanceUID"):
            raise InputError(path, "SeriesInstanceUID", "nothing", "a DICOM file of a series")
        return header


def text_of(header: Dataset, keyword: str) -> str:
    """Return a value as text, empty where the tag is missing or empty."""
    value = header.get(keyword)
    return "" if value is None else str(value)


def _entry(uid: str, members: list[tuple[str, Dataset]]) -> SeriesFiles:
    headers = [header for _, header in members]
    first, kind = headers[0], text_of(headers[0], "Modality")
    return SeriesFiles(
        uid=uid,
        kind=kind,
        files=tuple(path for path, _ in members),
        sop_uids=tuple(text_of(header, "SOPInstanceUID") for header in headers),
        patient=text_of(first, "PatientID"),
        description=text_of(first, "SeriesDescription"),
        frame_of_reference=text_of(first, "FrameOfReferenceUID"),
        image=kind not in NO_IMAGES and bool(first.get("Rows")),
        positioned=any(
            header.get("ImagePositionPatient") or header.get("SharedFunctionalGroupsSequence") for header in headers
        ),
    )
