"""MetaImage, through ITK."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.images.decoding import check_room, decoding, no_choice
from custom.images.formats import always, file_ending
from custom.images.image import Image
from custom.images.itk import LONGEST_HEADER, Declared, data_file, read_itk, read_start, write_itk

ENDINGS = (".mha", ".mhd")
DESCRIPTION = "MetaImage (.mha, .mhd)"
MASK = "mha"

_DECODER = "MetaImageIO"
_LINE = re.compile(rb"\s*([A-Za-z]\w*)[ \t]*[=:][ \t]*([^=:\s][^\r]*)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_TRUE = ("T", "t", "1")
_LENGTH = (re.compile(r"-?\d{1,18}"), "a number of bytes")
#: Key -> pattern of its value, and its description.
_REQUIRED = {
    "NDims": (re.compile("[2-4]"), "2 to 4"),
    "DimSize": (re.compile(r"[1-9]\d{0,8}([ \t]+[1-9]\d{0,8})*"), "whole numbers from 1 up"),
    "ElementType": (re.compile(r"MET_\w+"), "a type of MetaImage"),
    "ElementDataFile": (re.compile(".+"), "LOCAL or the name of a file"),
}
_OPTIONAL = {
    "BinaryData": (re.compile("[Tt1].*"), "True"),
    "ElementNumberOfChannels": (re.compile(r"[1-9]\d{0,8}"), "a whole number from 1 up"),
    "CompressedDataSize": _LENGTH,
    "HeaderSize": _LENGTH,
}
#: Keys of the position in space -> the count of their numbers is NDims to this power.
_PLACE = {
    **dict.fromkeys(("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation"), 1),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), 2),
}

recognises = file_ending(ENDINGS)
mask_ending = always(".mha")
mask_problem = always(None)  # every image has a grid, at least that of a picture


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read a volume or picture.

    Raises:
        InputError: see ``custom.images.itk.read_itk``; or the header names a file outside its own folder.
    """
    no_choice(path, series=series)
    with decoding(path, "MetaImage file"):
        return read_itk(path, "metaimage", _DECODER, _declared(path), frame=frame, labels=labels)


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map, whole or not at all; names are not stored."""
    write_itk(path, _DECODER, labels, image, {})


def _declared(path: str) -> Declared:
    """Read the text header, up to the line that names the file of the voxels.

    The accepted grammar is narrower than ITK's, which reads a missing value from the next line, so that both find the
    same file name.

    Raises:
        InputError: not a MetaImage header, incomplete, or naming a file in another folder.
    """
    fields: dict[str, str] = {}
    start = 0
    for line in BytesIO(read_start(path)):
        start += len(line)
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None or start == LONGEST_HEADER:
            raise InputError(path, "file", "no header of MetaImage", "lines of key = value up to ElementDataFile")
        key = found[1].decode()
        if key in fields:
            raise InputError(path, key, "two of them", "one")
        fields[key] = os.fsdecode(found[2])
        if key == "ElementDataFile":
            break
    _check_complete(fields, path)
    name = fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        data = path
    else:
        data, start = data_file(path, "ElementDataFile", name), 0
    if fields.get("CompressedData", "")[:1] not in _TRUE:
        skipped = fields.get("HeaderSize", "")
        return Declared(data=data, start=int(skipped) if skipped.isdecimal() else start, deflated=False)
    packed = fields.get("CompressedDataSize", "nothing" if data == path else str(os.path.getsize(data)))
    if not packed.isdecimal():  # ITK would return whatever is in memory
        raise InputError(path, "CompressedDataSize", packed, "the length of the compressed voxels")
    check_room(start + int(packed), data, deflated=False)
    return Declared(data=data, start=start, deflated=True, packed=int(packed))


def _check_complete(fields: Mapping[str, str], path: str) -> None:
    """Check what ITK would complain about on the terminal.

    Raises:
        InputError: a key is missing, or its value is malformed.
    """
    for key, (pattern, allowed) in (_REQUIRED | _OPTIONAL).items():
        if key in fields and not pattern.fullmatch(fields[key]):
            raise InputError(path, key, repr(fields[key]), allowed)
        if key in _REQUIRED and key not in fields:
            raise InputError(path, key, "nothing", allowed)
    first = next(key for key in fields if key in ("NDims", "DimSize", *_PLACE))
    if first != "NDims":
        raise InputError(path, first, "before NDims", "after it")
    if len(fields["DimSize"].split()) != int(fields["NDims"]):
        raise InputError(path, "DimSize", fields["DimSize"], f"{fields['NDims']} whole numbers from 1 up")
    for key, power in _PLACE.items():
        count, values = int(fields["NDims"]) ** power, fields.get(key, "").split()
        if key in fields and (len(values) < count or not all(map(_NUMBER.fullmatch, values[:count]))):
            raise InputError(path, key, repr(fields[key]), f"{count} finite numbers")
