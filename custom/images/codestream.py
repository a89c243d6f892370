"""The sizes that compressed pictures inside TIFF and DICOM files declare, whatever the file declares."""

from __future__ import annotations

import struct
from os import PathLike

from custom.limits import PIXELS

_SAMPLES = 4  # largest number of samples of a pixel in what is read here
_JPEG, _START_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_NO_LENGTH = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers of sizes; F7 is JPEG-LS
_ENDS = {0xD9, 0xDA}  # the end of the picture, and the start of its content


def check_codestream(data: bytes, path: str | PathLike[str]) -> None:
    """Check the size that a JPEG, JPEG-LS or JPEG 2000 codestream declares.

    Raises:
        InputError: it declares more pixels than ``custom.limits`` allows.
    """
    PIXELS.check(-(-_samples(data) // _SAMPLES), path, "size of a compressed picture")


def _samples(data: bytes) -> int:
    """Return height times width times samples; 0 if there is no such codestream."""
    if data.startswith(_JPEG):
        return _samples_of_jpeg(data)
    place = data.find(_START_2000)  # at the start, or after the boxes of JP2
    if place < 0 or len(data) < place + 42:
        return 0
    right, bottom, left, top = struct.unpack_from(">4I", data, place + 8)
    (samples,) = struct.unpack_from(">H", data, place + 40)
    return max(right - left, 0) * max(bottom - top, 0) * max(samples, _SAMPLES)


def _samples_of_jpeg(data: bytes) -> int:
    """Go from marker to marker as decoders do, skipping other bytes."""
    place = len(_JPEG)
    while (place := data.find(b"\xff", place)) >= 0:
        while data[place : place + 1] == b"\xff":
            place += 1
        if place + 9 > len(data) or data[place] in _ENDS:
            return 0
        marker, length = data[place], int.from_bytes(data[place + 1 : place + 3], "big")
        place += 1
        if marker in _FRAMES:
            height, width, samples = struct.unpack_from(">HHB", data, place + 3)
            return height * width * max(samples, _SAMPLES)
        if marker and marker not in _NO_LENGTH:
            place += length
    return 0
