"""Radiotherapy structure sets (RTSTRUCT) as masks of DICOM images; written only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.images.formats import always
from custom.images.image import Image

ENDINGS: tuple[str, ...] = ()
DESCRIPTION = ""
MASK = "rtstruct"

recognises = always(False)  # a structure set is not an image; ``dicom_labels`` reads its labels
mask_ending = always(".dcm")


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Refuse to read.

    Raises:
        InputError: always.
    """
    raise InputError(path, "file", "a structure set", "an image; structure sets are only written")


def mask_problem(image: Image) -> str | None:
    """Return why outlines in mm cannot refer to an image, or None."""
    if image.format != "dicom":
        return "no DICOM image for a structure set to refer to"
    from custom.images.dicom_rtstruct_writing import rtstruct_problem

    if image.geometry is not None and image.geometry.shape != image.source.geometry.shape:
        return "one slice of a DICOM series"
    return rtstruct_problem(image.source)


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map of the size of ``image.array`` as outlines, whole or not at all; see ``write_rtstruct``.

    Raises:
        InputError: an id has no name.
    """
    from custom.images.dicom_rtstruct_writing import write_rtstruct

    write_rtstruct(path, labels if image.kind == "volume" else labels[None], names, image.source)
