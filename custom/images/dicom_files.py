"""Open DICOM files, each once: list the series of a folder, and read the files of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset as read_elements
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from custom.atomic_write import files_below, is_inside
from custom.errors import InputError
from custom.images.decoding import decoding
from custom.images.dicom_mark import FIRST_BYTES, is_dicom, is_marked
from custom.limits import BYTES, DEFLATE_RATIO

#: Modalities whose objects have rows and columns but are not images to segment.
NO_IMAGES = ("SEG", "RTDOSE")
#: Field of ``SeriesFacts`` -> keyword of its tag.
_FACTS = {
    "uid": "SeriesInstanceUID",
    "kind": "Modality",
    "patient": "PatientID",
    "description": "SeriesDescription",
    "frame_of_reference": "FrameOfReferenceUID",
}
_LISTED = [
    *_FACTS.values(),
    *("SOPInstanceUID", "SeriesNumber", "Rows", "ImagePositionPatient", "SharedFunctionalGroupsSequence"),
]
_FIRST_PIXELS = 0x7FE00000  # elements from this tag on are pixels and what follows them
#: (implicit VR, little endian) as pydicom finds them -> the transfer syntax of a file that names none.
_SYNTAXES = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """What the first header of a series says about it, as text; all but ``uid`` may be empty.

    Attributes:
        uid: SeriesInstanceUID.
        kind: DICOM's Modality, e.g. ``"CT"``, ``"SEG"`` or ``"RTSTRUCT"``.
        patient: PatientID.
        description: SeriesDescription.
        frame_of_reference: FrameOfReferenceUID.
    """

    uid: str
    kind: str
    patient: str
    description: str
    frame_of_reference: str


@dataclass(frozen=True, kw_only=True)
class SeriesFiles(SeriesFacts):
    """The files of one SeriesInstanceUID, according to their headers.

    Attributes:
        number: SeriesNumber; None if missing or not a number.
        files: paths, in the order in which they were listed.
        sop_uids: SOPInstanceUID of each file.
        image: whether it holds images that ``read_series`` can read.
        positioned: whether its images have a position in the patient, so that they make one volume.
    """

    number: int | None
    files: tuple[str, ...]
    sop_uids: tuple[str, ...]
    image: bool
    positioned: bool

    def answers_to(self, name: str | None) -> bool:
        """Return whether a UID, number or description (in any case) names this series; None names every series."""
        names = {self.uid, str(self.number), self.description.strip().lower()} - {"", "None"}
        return name is None or name.strip().lower() in names

    def __str__(self) -> str:
        """Return its description in a list of choices."""
        number = "no number" if self.number is None else f"number {self.number}"
        files = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        return f"{self.uid} ({', '.join(filter(None, (number, self.kind, self.description, files)))})"


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


class OpenFile:
    """An open file: its header is read first, then the rest if it is needed.

    Raises:
        InputError: a deflated file could unpack to more than ``custom.limits`` allows.
        Exception: any error of pydicom, for ``decoding``.
    """

    def __init__(self, path: str | Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        first = file.read(FIRST_BYTES)
        self._marked = is_marked(first)
        self._forced = not self._marked and is_dicom(path, first)
        if self._marked or self._forced:
            self._check_deflated()

    def header(self, tags: list[str] | None = None) -> Dataset | None:
        """Return the elements before the pixels, or some of them; None for a file that is not DICOM."""
        if not (self._marked or self._forced):
            return None
        header = self.read(pixels=False, tags=tags)
        if not header.get("SeriesInstanceUID") and not is_directory(header):
            if self._forced:
                return None
            raise InputError(self._path, "SeriesInstanceUID", "nothing", "a DICOM file of a series")
        return header

    def read(self, *, pixels: bool = True, tags: list[str] | None = None) -> Dataset:
        """Read the file to its end, or up to its pixels; ``tags`` limits it to some elements.

        Raises:
            InvalidDicomError: it is not DICOM.
        """
        self._file.seek(0)
        dataset = dcmread(self._file, stop_before_pixels=not pixels, specific_tags=tags, force=self._forced)
        if not dataset.file_meta.get("TransferSyntaxUID"):
            dataset.file_meta.TransferSyntaxUID = _SYNTAXES[dataset.original_encoding]
        return dataset

    def whole(self) -> Dataset:
        """Read the file to its end.

        Raises:
            InputError: it is not DICOM.
        """
        try:
            return self.read()
        except InvalidDicomError as error:
            raise InputError(self._path, "file", "no DICOM image", "images of one series") from error

    def _check_deflated(self) -> None:
        """Check before pydicom reads anything, because it unpacks everything at once."""
        self._file.seek(FIRST_BYTES if self._marked else 0)
        meta = read_elements(self._file, False, True, stop_when=lambda tag, *_: tag.group != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            size = Path(self._path).stat().st_size
            BYTES.check(size * DEFLATE_RATIO, self._path, "deflated file, unpacked")


def list_series(folder: str | Path) -> Listing:
    """List the series below a folder from the files' headers; no pixels are read.

    Hidden files are included, and any file name is accepted.

    Raises:
        InputError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(folder, "folder", "no such folder", "a folder with DICOM files")
    return _list(files_below(folder), lambda series: False)[0]


def load_series(
    source: str | Path | Iterable[str | Path], series: str | None = None
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Read the files of one image series, pixels included; each file is opened once. Arguments as in ``read_series``.

    Returns:
        Path -> data set; and a line for each other file that cannot be read, which may belong to the series.

    Raises:
        InputError: there is not exactly one image series, or a file of it cannot be read.
    """
    if not isinstance(source, (str, Path)):
        paths = [str(path) for path in source]
        if not paths:
            raise InputError("files", "series", "no file", "the files of one image series")
        return {path: _read_image(path) for path in paths}, ()
    if Path(source).is_dir():
        return _choose(files_below(source), source, series)
    with _opened(source) as file:
        dataset = file.whole()
        if not is_directory(dataset):
            entry = _entry([(str(source), _image(source, dataset))])
            if not entry.answers_to(series):
                raise InputError(source, "series", repr(series), str(entry))
            return {str(source): dataset}, ()
        paths = _referenced_files(dataset, Path(source))
    return _choose(paths, source, series)


def read_dataset(path: str | Path, *, pixels: bool = True, tags: list[str] | None = None) -> Dataset:
    """Read a DICOM file to its end, or up to its pixels; ``tags`` are the keywords of the only elements to read.

    Raises:
        InputError: a deflated file could unpack to more than ``custom.limits`` allows.
        Exception: any error of pydicom, for ``decoding``.
    """
    with open(path, "rb") as file:
        return OpenFile(path, file).read(pixels=pixels, tags=tags)


def read_header(path: str | Path, tags: list[str] | None = None) -> Dataset | None:
    """Return the header without pixels, or None for a file that is not DICOM or is a DICOMDIR."""
    with _opened(path) as file:
        header = file.header(tags)
    return None if header is None or is_directory(header) else header


def drop_pixels(dataset: Dataset) -> None:
    """Drop the pixels of a data set and what follows them, so that only the header remains."""
    for tag in _pixel_tags(dataset):
        del dataset[tag]


def is_directory(header: Dataset) -> bool:
    """Return whether a file is a DICOMDIR."""
    return header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def text_of(header: Dataset, keyword: str) -> str:
    """Return a value as text, empty if the tag is missing or empty."""
    value = header.get(keyword)
    return "" if value is None else str(value)


def facts_of(header: Dataset) -> dict[str, str]:
    """Return the fields of ``SeriesFacts``."""
    return {field: text_of(header, keyword) for field, keyword in _FACTS.items()}


def number_of(header: Dataset, keyword: str) -> int | None:
    """Return a whole number, None if the tag is missing or holds something else."""
    try:
        return int(header.get(keyword))
    except (TypeError, ValueError, OverflowError):
        return None


@contextmanager
def _opened(path: str | Path) -> Iterator[OpenFile]:
    with decoding(path, "DICOM file"), open(path, "rb") as file:
        yield OpenFile(path, file)


def _read_image(path: str) -> Dataset:
    with _opened(path) as file:
        return _image(path, file.whole())


def _image(path: str | Path, dataset: Dataset) -> Dataset:
    """Return a data set if it can be an image of a series."""
    kind = "DICOMDIR" if is_directory(dataset) else text_of(dataset, "Modality")
    if kind in (*NO_IMAGES, "DICOMDIR"):
        raise InputError(path, "file", f"no DICOM image but a {kind}", "images of one series")
    if not dataset.get("SeriesInstanceUID"):
        raise InputError(path, "SeriesInstanceUID", "nothing", "a DICOM file of a series")
    return dataset


def _choose(paths: list[str], source: str | Path, series: str | None) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    listing, kept, held = _list(paths, lambda entry: entry.answers_to(series))
    images = [entry for entry in listing.series if entry.image]
    chosen = [entry for entry in images if entry.answers_to(series)]
    if len(chosen) == 1:
        BYTES.check(held, source, "pixels of the series")
        # A file that could not be read to its end is missing; reading it again raises its error for the user.
        read = {path: kept[path] if path in kept else _read_image(path) for path in chosen[0].files}
        return read, tuple(map(str, listing.unreadable))  # as text: error objects would keep the pixels in memory
    if not images and listing.unreadable:
        raise listing.unreadable[0]
    if not images:
        found = f"no image series in {len(paths)} files ({listing.others} are not DICOM)"
        raise InputError(source, "series", found, "DICOM images")
    found = f"{len(images)} image series" if series is None else f"{series!r}, which {len(chosen)} series answer to"
    allowed = "the UID, number or description of one of: " + "; ".join(map(str, images))
    raise InputError(source, "series", found, allowed)


def _list(paths: Iterable[str], wanted: Callable[[SeriesFiles], bool]) -> tuple[Listing, dict[str, Dataset], int]:
    """List the series of some files, and read those of the one image series that is wanted.

    Returns:
        The listing; path -> data set, empty unless there is exactly one such series; and the bytes of all its pixels.
        Once these exceed ``custom.limits``, no more data sets are kept.
    """
    members: dict[str, list[tuple[str, Dataset]]] = {}
    chosen: set[str] = set()
    kept: dict[str, Dataset] = {}
    unreadable, others, held = [], 0, 0
    for path in paths:
        try:
            with _opened(path) as file:
                header = file.header(_LISTED)
                if header is None or is_directory(header):
                    others += 1
                    continue
                list(header)  # pydicom checks values when they are accessed
                uid, entry = str(header.SeriesInstanceUID), _entry([(path, header)])
                if uid not in members and entry.image and wanted(entry):
                    chosen.add(uid)
                members.setdefault(uid, []).append((path, header))
                if chosen != {uid}:
                    continue
                with suppress(InputError), decoding(path, "DICOM file"):
                    dataset = file.whole()
                    held += sum(len(dataset.get_item(tag).value or b"") for tag in _pixel_tags(dataset))
                    if held <= BYTES.value:
                        kept[path] = dataset
        except InputError as error:
            unreadable.append(error)
        if len(chosen) > 1:
            kept.clear()
    series = tuple(_entry(files) for files in members.values())
    return Listing(series=series, unreadable=tuple(unreadable), others=others), kept, held


def _referenced_files(directory: Dataset, path: Path) -> list[str]:
    """Return the files that a DICOMDIR lists, each once.

    Raises:
        InputError: one lies outside its folder.
    """
    found: dict[str, None] = {}
    for record in directory.get("DirectoryRecordSequence") or []:
        parts = record.get("ReferencedFileID")
        if not parts:
            continue
        file = path.parent.joinpath(*([parts] if isinstance(parts, str) else map(str, parts)))
        if not is_inside(file, path.parent):  # a file must not make us read elsewhere
            raise InputError(path, "ReferencedFileID", str(file), "files in the folder of the DICOMDIR")
        found[str(file)] = None
    return list(found)


def _entry(members: list[tuple[str, Dataset]]) -> SeriesFiles:
    headers = [header for _, header in members]
    facts, places = facts_of(headers[0]), ("ImagePositionPatient", "SharedFunctionalGroupsSequence")
    return SeriesFiles(
        **facts,
        number=number_of(headers[0], "SeriesNumber"),
        files=tuple(path for path, _ in members),
        sop_uids=tuple(text_of(header, "SOPInstanceUID") for header in headers),
        image=facts["kind"] not in NO_IMAGES and bool(headers[0].get("Rows")),
        positioned=any(header.get(keyword) for header in headers for keyword in places),
    )


def _pixel_tags(dataset: Dataset) -> list[BaseTag]:
    return [tag for tag in dataset.keys() if tag >= _FIRST_PIXELS]
