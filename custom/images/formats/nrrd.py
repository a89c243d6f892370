"""NRRD, through ITK; masks name their segments as 3D Slicer does."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.images.decoding import decoding, no_choice
from custom.images.formats import always, file_ending
from custom.images.image import Image
from custom.images.itk import LONGEST_HEADER, Declared, data_file, read_itk, read_start, write_itk

ENDINGS = (".nrrd", ".nhdr")
DESCRIPTION = "NRRD (.nrrd, .nhdr)"
MASK = "nrrd"

_DECODER = "NrrdImageIO"
_ENCODINGS = {"raw": False, "gzip": True, "gz": True}  # -> deflated; ITK reads the others slowly or not at all

recognises = file_ending(ENDINGS)
mask_ending = always(".nrrd")
mask_problem = always(None)  # every image has a grid, at least that of a picture


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read a volume or picture.

    Raises:
        InputError: see ``custom.images.itk.read_itk``; or the header names a file outside its own folder.
    """
    no_choice(path, series=series)
    with decoding(path, "NRRD file"):
        return read_itk(path, "nrrd", _DECODER, _declared(path), frame=frame, labels=labels)


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map with the names of its segments, whole or not at all."""
    extent = " ".join(f"0 {n - 1}" for n in image.grid.shape)
    facts = {}
    for n, (value, name) in enumerate(names.items()):
        segment = {"ID": f"Segment_{value}", "Name": name, "LabelValue": str(value), "Layer": "0", "Extent": extent}
        facts |= {f"Segment{n}_{key}": text for key, text in segment.items()}
    write_itk(path, _DECODER, labels, image, facts)


def _declared(path: str) -> Declared:
    """Read the text header, which ends with an empty line.

    Raises:
        InputError: not a NRRD header, without an end, with an unusual encoding, or naming a file in another folder.
    """
    start = read_start(path)
    end = re.search(rb"\r?\n\r?\n", start)
    text = start[: end.start() if end else None].replace(b"\r\n", b"\n")
    if not text.startswith(b"NRRD000") or b"\r" in text or (end is None and len(start) == LONGEST_HEADER):
        raise InputError(path, "file", "no NRRD header", "NRRD0001 to NRRD0005 and lines of text")
    fields: dict[str, str] = {}
    for line in os.fsdecode(text).split("\n")[1:]:
        name, _, value = line.partition(":")
        name = "".join(name.split()).lower()
        if name in fields and name in ("encoding", "datafile"):
            raise InputError(path, name, "two of them", "one")  # ITK decides which of them counts
        fields[name] = value.strip()
    encoding = fields.get("encoding", "").lower()
    if encoding not in _ENCODINGS:
        raise InputError(path, "encoding", repr(encoding), "raw or gzip")
    apart = fields.get("datafile")
    if apart is None:
        return Declared(data=path, start=end.end() if end else len(start), deflated=_ENCODINGS[encoding])
    return Declared(data=data_file(path, "data file", apart), start=0, deflated=_ENCODINGS[encoding])
