"""Recognise DICOM files by their names and first bytes. Imports no decoder, so that it costs no time."""

from __future__ import annotations

import struct
from pathlib import Path

ENDINGS = (".dcm", ".dicom", ".ima")
DIRECTORY_NAME = "DICOMDIR"
#: Number of bytes that ``is_marked`` and ``is_dicom`` need.
FIRST_BYTES = 132
_GROUPS = (0x0002, 0x0008)  # the groups that a data set without preamble begins with
_LONGEST = 1024  # bytes of its first value


def is_marked(first: bytes) -> bool:
    """Return whether a file's first bytes are a preamble with the mark ``DICM``."""
    return first[128:FIRST_BYTES] == b"DICM"


def is_dicom(path: str | Path, first: bytes) -> bool:
    """Return whether a file is DICOM.

    A file is DICOM if it has the mark. Without the mark it must begin like a data set and have an ending of DICOM or
    none: some old scanners write no preamble. Numbers, as at the end of a UID, are not an ending.
    """
    ending = Path(path).suffix.lower()
    named = ending in ENDINGS or not ending.strip(".0123456789")
    return is_marked(first) or (named and (_is_data_set(first, "<") or _is_data_set(first, ">")))


def _is_data_set(first: bytes, order: str) -> bool:
    """Return whether bytes begin with one or two elements of the first group, in a byte order of ``struct``."""
    if len(first) < 8:
        return False
    group, _, kind, length = struct.unpack_from(f"{order}HH2sH", first)
    if not (kind.isalpha() and kind.isupper()):
        (length,) = struct.unpack_from(f"{order}I", first, 4)
    following = first[8 + length : 10 + length]
    return group in _GROUPS and length <= _LONGEST and following in (b"", first[:2])
