"""Check the directories of a TIFF before tifffile parses them: they can point to each other without end.

Layout: TIFF 6.0, section 2; BigTIFF has wider numbers.
"""

from __future__ import annotations

import os
import struct
from os import PathLike
from typing import BinaryIO

from custom.errors import InputError
from custom.limits import SLICES

#: Tags whose values are offsets of further directories: SubIFDs, Exif, GPS, interoperability.
_POINTERS = (330, 34665, 34853, 40965)
#: Size of a value of each data type in bytes.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
#: How many values a byte may belong to on average: some writers share values between pages, but not directories.
_SHARED = 16


def check_directories(path: str | PathLike[str]) -> None:
    """Check that the directories of a TIFF end and, with the values they name, are not much longer than the file.

    Anything else that is malformed is left to the decoder.

    Raises:
        InputError: a page that leads back to another, more pages than ``custom.limits`` allows, a directory that is cut
            off, or more to parse than a file of its length can hold.
    """
    with open(path, "rb") as file:
        _Walk(file, path).run()


class _Walk:
    """One walk through the directories of a file."""

    def __init__(self, file: BinaryIO, path: str | PathLike[str]) -> None:
        self.file, self.path = file, path
        self.room, self.used = _SHARED * os.fstat(file.fileno()).st_size, 0
        self.costs: dict[int, int] = {}  # place of a directory -> bytes that it and its values use

    def run(self) -> None:
        """Follow the pages and the directories they point to."""
        head = self.file.read(16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order or len(head) < 16:
            return
        big = self._number("H", head[2:4]) == 43
        self.count, self.offset, self.entry = ("Q", "Q", "HHQ8s") if big else ("H", "I", "HHI4s")
        place, pages = self._number(self.offset, head[8:16] if big else head[4:8]), set()
        while place:
            if place in pages:
                found = f"page {len(pages)} leads back to an earlier one"
                raise InputError(self.path, "pages", found, "a finite list of pages")
            pages.add(place)
            SLICES.check(len(pages), self.path, "pages")
            place = self._directory(place)

    def _directory(self, place: int) -> int:
        """Count a directory and those it points to; return the place of the next one, 0 if there is none."""
        before = self.used
        number = self._number(self.count, self._read(place, struct.calcsize(f"={self.count}")))
        length = number * struct.calcsize(f"={self.entry}")
        self.costs[place] = length * _SHARED  # until the rest is known
        self._use(length * _SHARED)
        raw = self._read(place + struct.calcsize(f"={self.count}"), length + struct.calcsize(f"={self.offset}"))
        for tag, kind, count, value in struct.iter_unpack(f"{self.order}{self.entry}", raw[:length]):
            size = count * _SIZES.get(kind, 1)
            if size > len(value):
                self._use(size)
            if tag in _POINTERS:
                self._follow(kind, size, value)
        self.costs[place] = self.used - before
        return self._number(self.offset, raw[length:])

    def _follow(self, kind: int, size: int, value: bytes) -> None:
        """Count the directories that the value of a tag points to."""
        raw = value[:size] if size <= len(value) else self._read(self._number(self.offset, value), size)
        code = {2: "H", 4: "I", 8: "Q"}.get(_SIZES.get(kind, 1))
        for (place,) in struct.iter_unpack(f"{self.order}{code}", raw) if code else ():
            if place in self.costs:  # parsed again at every reference
                self._use(self.costs[place])
            else:
                self._directory(place)

    def _read(self, place: int, size: int) -> bytes:
        self.file.seek(place)
        raw = self.file.read(size)
        if len(raw) < size:
            raise InputError(self.path, "file", f"a directory cut off at byte {place}", "a whole TIFF file")
        return raw

    def _number(self, code: str, raw: bytes) -> int:
        return struct.unpack(f"{self.order}{code}", raw)[0]

    def _use(self, size: int) -> None:
        self.used += size
        if self.used > self.room:
            found = "directories and values that overlap endlessly"
            raise InputError(self.path, "pages", found, "no more to parse than a file of this length can hold")
