"""Reader of DICOM folders: image series with their SEG and RTSTRUCT objects, in any layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from custom.errors import InputError
from custom.images.dicom import list_series, read_series
from custom.images.dicom_files import SeriesFiles
from custom.images.dicom_labels import LABEL_READERS, label_references
from custom.images.formats.dicom import image_of
from custom.modalities import MODALITIES, canonical_modality
from data_prep.readers.base import ALL_IDS, Case, Reader, Source, parse_names, safe_name


class DicomReader(Reader):
    """Read series with the label objects that refer to them, one case for each pair.

    A label object belongs to the series it names, or else to the one series of its frame of reference.
    Pictures without a position (X-rays, photographs) are separate cases, each with the objects that name it.

    Args:
        src: folder with DICOM files at any depth; other files are skipped.
        modality: of every case; None uses DICOM's Modality.
        names: label id -> name, each replaces the file's name. The id of a SEG is its segment number, that of an
            RTSTRUCT the place among its structures with closed outlines, from 1.

    Raises:
        InputError: the folder is missing, the modality is unknown, or ``names`` is not such a table.
    """

    def __init__(
        self, src: str | Path, *, modality: str | None = None, names: Mapping[int | str, str] | None = None
    ) -> None:
        self.use_folder(src, "a folder with DICOM files")
        self.modality = None if modality is None else canonical_modality(modality, "arguments")
        self.names = {} if names is None else parse_names(names, "arguments", "names")
        if ALL_IDS in self.names:
            raise InputError("arguments", "names", repr(ALL_IDS), "ids, since DICOM label objects name all their ids")

    def sources(self) -> list[Source]:
        """List the pairs of images and label objects, in the order of the series' first files."""
        listing = list_series(self.src)
        images = [unit for series in listing.series if series.image for unit in _units(series)]
        found = [Source(str(error.source), files=(str(error.source),), error=error) for error in listing.unreadable]
        pairs: list[list[Source]] = [[] for _ in images]
        names = {str(key): name for key, name in self.names.items()}  # as in JSON
        for series in listing.series:
            if series.kind not in LABEL_READERS:
                continue
            entry = {"kind": series.kind, "modality": self.modality, "names": names}
            for path, sop_uid in zip(series.files, series.sop_uids, strict=True):
                try:
                    matches = _matches(path, images)
                except InputError as error:
                    found.append(Source(path, files=(path,), error=error))
                    continue
                for number in matches:
                    files = (*images[number].files, path)
                    pairs[number].append(Source(_case_name(images[number], sop_uid), entry, files))
        for unit, cases in zip(images, pairs, strict=True):
            if not cases:
                allowed = f"a {' or '.join(LABEL_READERS)} object that refers to it"
                error = InputError(unit.files[0], "label", f"none for series {unit.uid}", allowed)
                cases.append(Source(_case_name(unit, ""), files=unit.files, error=error))
            found += cases
        if not found:
            raise InputError(self.src, "src", f"no DICOM file ({listing.others} other files)", "DICOM series")
        return found

    def load(self, source: Source) -> Case:
        """Load one pair."""
        *files, label_file = source.files
        series = read_series(files)
        modality = source.entry["modality"] or series.modality
        if modality is None:
            allowed = f"a known one, or one of {', '.join(MODALITIES)} as the option modality"
            raise InputError(files[0], "Modality", repr(series.kind), allowed)
        label, names = LABEL_READERS[source.entry["kind"]](label_file, series)
        return Case(
            name=source.name,
            modality=modality,
            dataset=self.name,
            image=image_of(series, files[0]),
            label=label,
            label_file=label_file,
            names=names | {int(key): name for key, name in source.entry["names"].items()},
            meta={"patient": series.patient} if series.patient else {},
        )


def _units(series: SeriesFiles) -> list[SeriesFiles]:
    """Return the series, or its pictures one by one if they have no common space."""
    if series.positioned:
        return [series]
    pictures = zip(series.files, series.sop_uids, strict=True)
    return [replace(series, files=(path,), sop_uids=(sop_uid,)) for path, sop_uid in pictures]


def _matches(path: str, images: list[SeriesFiles]) -> list[int]:
    """Return the numbers of the images that a label object refers to; an error if it is not clear which these are."""
    references = label_references(path)
    found = [number for number, unit in enumerate(images) if _named(unit, references.images)]
    if not found and not references.images:
        frames = references.frames_of_reference
        found = [number for number, unit in enumerate(images) if unit.frame_of_reference in frames]
        if len(found) > 1:
            several = f"none named, and {len(found)} in its frame of reference"
            raise InputError(path, "series", several, "a label object that names its series")
    if not found:
        names = ", ".join(references.images) or ", ".join(references.frames_of_reference) or "nothing"
        raise InputError(path, "series", f"a reference to {names}, which is missing", "the series it was drawn on")
    return found


def _named(unit: SeriesFiles, images: Mapping[str, frozenset[str]]) -> bool:
    if unit.uid not in images:
        return False
    instances = images[unit.uid]
    return unit.positioned or not instances or not instances.isdisjoint(unit.sop_uids)


def _case_name(unit: SeriesFiles, label_uid: str) -> str:
    """Return patient and description, made unique by a digest of the UIDs."""
    uids = "/".join((unit.uid, min(unit.sop_uids), label_uid))
    digest = hashlib.sha256(uids.encode()).hexdigest()[:10]
    return safe_name(unit.patient, unit.description, digest)
