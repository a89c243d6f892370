"""What SEG and RTSTRUCT have in common when written: the headers they are derived from, and object names."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import DA, TM

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.decoding import as_label
from custom.images.dicom import DicomSeries
from custom.images.dicom_files import text_of

NAME = "MCP-MedSAM"
_LONGEST = 64  # characters of a LO
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
#: Patient and study: must be present in a derived object, but may be empty; anonymised files lack them.
PATIENT_AND_STUDY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyID", "StudyDate", "StudyTime"),
)
#: Those that are checked -> the ACR-NEMA form that becomes DICOM's without one character, and the check.
_CHECKED: dict[str, tuple[str, Callable[[str], object]]] = {
    "PatientBirthDate": (".", DA),
    "PatientSex": (" ", ("M", "F", "O").index),
    "StudyDate": (".", DA),
    "StudyTime": (":", TM),
}


def missing_uid(series: DicomSeries) -> str | None:
    """Return which of the identifiers that every derived object needs is missing in the headers, or None."""
    for keyword in _UIDS:
        try:
            uids = [text_of(header, keyword) for header in series.headers]
        except Exception as error:  # pydicom checks values when they are accessed
            return f"a malformed {keyword} ({type(error).__name__})"
        for uid in uids:
            if not re.fullmatch("[0-9.]{1,64}", uid):
                return f"{keyword} {uid!r}, which is not a UID" if uid else f"no {keyword}"
    return None


def first_header(series: DicomSeries) -> Dataset:
    """Return a copy of the first header with complete patient and study; unknown or malformed values are empty."""
    header = deepcopy(series.headers[0])
    for keyword in PATIENT_AND_STUDY:
        if keyword not in header:
            setattr(header, keyword, None)
    for keyword, (dropped, check) in _CHECKED.items():
        value = text_of(header, keyword).replace(dropped, "")
        try:
            check(value)
        except ValueError:
            value = ""
        setattr(header, keyword, value)
    if header.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in header:
        header.DeidentificationMethod = header.get("DeidentificationMethod") or "not recorded"
    return header


def write_object(
    path: str | Path,
    label: np.ndarray,
    names: Mapping[int, str],
    series: DicomSeries,
    *,
    problem: Callable[[DicomSeries], str | None],
    allowed: str,
    build: Callable[[DicomSeries, np.ndarray, Mapping[int, str]], bytes],
) -> None:
    """Write an object that is derived from a series, whole or not at all.

    Args:
        path: file to write.
        label: (Z, H, W) integers, canonical, 0 is background.
        names: id -> name; every id of ``label``, possibly more. Names that DICOM does not allow are changed
            (``object_names``).
        series: the segmented images.
        problem: returns why nothing can be derived from them, or None.
        allowed: what can be, for the error.
        build: makes the file of the series, the stored slices of the label map, and the names in the order of ids.

    Raises:
        InputError: there is a problem, the label map has another shape than the series, ids without a name, or no id.
    """
    path = Path(path)
    label = as_label(label, path)
    if label.shape != series.array.shape[:3]:
        raise InputError(path, "label", f"shape {label.shape}", f"{series.array.shape[:3]} as the series")
    if not names or min(names) < 1:
        raise InputError(path, "names", f"ids {sorted(names)}", "at least one id, from 1 up")
    unnamed = sorted(set(np.unique(label).tolist()) - {0, *names})
    if unnamed:
        raise InputError(path, "names", f"no name for ids {unnamed[:8]}", "a name for every id of the label map")
    found = problem(series)
    if found is not None:
        raise InputError(series.files[0], "series", found, allowed)
    with warnings.catch_warnings():  # about the source, e.g. its patient name
        warnings.simplefilter("ignore")
        data = build(series, series.to_slices(label), object_names(names))
    write_whole(path, lambda file: file.write(data))


def object_names(names: Mapping[int, str]) -> dict[int, str]:
    """Make names valid in DICOM, in the order of their ids: 1 to 64 characters, no backslash, each one unique.

    Example:
        >>> object_names({1: "cyst", 2: "cyst", 5: ""})
        {1: 'cyst', 2: 'cyst 2', 5: 'object 5'}
    """
    found: dict[int, str] = {}
    used, counts = set(), Counter()
    for i, name in sorted(names.items()):
        text = " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in name).split()) or f"object {i}"
        unique = text[:_LONGEST]
        while unique in used:
            counts[text] += 1
            number = f" {counts[text] + 1}"
            unique = text[: _LONGEST - len(number)] + number
        used.add(unique)
        found[int(i)] = unique
    return found
