"""DICOM: a file, a folder or a DICOMDIR; masks are DICOM segmentation objects (SEG)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from custom.errors import InputError
from custom.images.decoding import decoding, no_choice
from custom.images.dicom_mark import DIRECTORY_NAME, ENDINGS, FIRST_BYTES, is_dicom
from custom.images.formats import always
from custom.images.image import Image

if TYPE_CHECKING:
    from custom.images.dicom import DicomSeries

DESCRIPTION = f"DICOM ({', '.join(ENDINGS)}, a folder or a {DIRECTORY_NAME})"
MASK = "seg"

mask_ending = always(ENDINGS[0])


def recognises(path: str) -> bool:
    """Return whether a path is a folder, has the name of a DICOM file or begins like one."""
    name = os.path.basename(path)
    if os.path.isdir(path) or name.upper() == DIRECTORY_NAME or name.lower().endswith(ENDINGS):
        return True
    with decoding(path, "image"), open(path, "rb") as file:
        return is_dicom(path, file.read(FIRST_BYTES))


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read a series of a file, a folder or a DICOMDIR; see ``custom.images.dicom.read_series``.

    There is no choice of a frame: the frames of a file are its slices. A label object cannot be placed without its
    image; see ``read_label_object``. The notes hold ``series`` (uid, description, dicom_modality); for several slices
    ``slices`` (z as in boxes, InstanceNumber, SOPInstanceUID and, in a multi-frame file, frame); ``warning_modality``
    if DICOM's Modality is not one of the eleven; and ``unreadable``, a line for each other file of a folder that cannot
    be read.

    Raises:
        InputError: not exactly one image series, no evenly spaced volume, or ``labels`` or a frame was given.
    """
    from custom.images.dicom import read_series

    no_choice(path, frame=frame)
    if labels:
        raise InputError(path, "label", "a DICOM object without its image", "a SEG or RTSTRUCT beside its image series")
    return image_of(read_series(path, series), path)


def image_of(series: DicomSeries, path: str) -> Image:
    """Return the image of a series that was read from a path."""
    return Image(
        path=path,
        format="dicom",
        array=series.array,
        kind="picture" if len(series.array) == 1 else "volume",
        geometry=series.geometry,
        spacing=series.spacing,
        modality=series.modality,
        modality_source=series.modality and "DICOM",
        # A mask needs only the shape of the values; keeping them would double the memory.
        source=replace(series, array=np.broadcast_to(series.array.dtype.type(0), series.array.shape)),
        notes=_notes(series),
    )


def read_label_object(path: str | os.PathLike[str], image: Image) -> tuple[np.ndarray, dict[int, str]]:
    """Read a SEG or RTSTRUCT on the grid of the image that it belongs to.

    Returns:
        (Z, H, W) uint8 or uint16, canonical, of the size of ``image.array``, a picture's with Z = 1; and id -> name.

    Raises:
        InputError: the file is not such an object or belongs to another image, or the image is not DICOM.
    """
    from custom.images.dicom_files import read_header, text_of
    from custom.images.dicom_labels import LABEL_READERS

    if image.format != "dicom":
        raise InputError(path, "image", image.path, "the DICOM series that the labels were drawn on")
    header = read_header(path, ["Modality", "SeriesInstanceUID"])
    kind = "" if header is None else text_of(header, "Modality")
    if kind not in LABEL_READERS:
        raise InputError(path, "Modality", repr(kind), " or ".join(LABEL_READERS))
    return LABEL_READERS[kind](path, image.source)


def mask_problem(image: Image) -> str | None:
    """Return why no SEG can be written for an image, or None."""
    if image.format != "dicom":
        return "no DICOM image for a SEG to refer to"
    series: DicomSeries = image.source
    if image.geometry is None:
        cut_out = image.kind == "picture" and len(series.sop_uids) > 1
    else:
        cut_out = image.geometry.shape != series.geometry.shape
    if cut_out:
        return "one slice of a DICOM series"
    from custom.images.dicom_seg_writing import seg_problem

    return seg_problem(series)


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map of the size of ``image.array`` as a SEG that refers to the image, whole or not at all.

    Raises:
        InputError: the headers of the series are not sufficient.
    """
    from custom.images.dicom_seg_writing import write_seg

    write_seg(path, labels if image.kind == "volume" else labels[None], names, image.source)


def _notes(series: DicomSeries) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "series": {"uid": series.uid, "description": series.description, "dicom_modality": series.kind}
    }
    if len(series.sop_uids) > 1:
        many = len(series.files) < len(series.sop_uids)
        facts = zip(series.instance_numbers, series.sop_uids, series.frames, strict=True)
        notes["slices"] = [
            {"z": z, "InstanceNumber": number, "SOPInstanceUID": uid} | ({"frame": frame} if many else {})
            for z, (number, uid, frame) in enumerate(facts)
        ]
    if series.modality is None:
        kind = f"DICOM's Modality {series.kind}" if series.kind else "DICOM's Modality, which is empty,"
        notes["warning_modality"] = f"{kind} has no counterpart; declare one with --modality"
    if series.unreadable:
        notes["unreadable"] = list(series.unreadable)
    return notes
