"""Check the codes of an LZW strip or tile of a TIFF before imagecodecs decodes them.

The decoder accepts any code as the first one after a Clear, even one without a table entry yet, and then reads memory
that is not its own. Layout: TIFF 6.0, section 13.
"""

from __future__ import annotations

from os import PathLike

import numpy as np

from custom.errors import InputError

CLEAR, END = 256, 257
#: Bits of the codes after a Clear: a width ends one entry early, and the last one lasts until the next Clear.
_WIDTHS = np.repeat((9, 10, 11, 12), (254, 512, 1024, 2310))
_ENDS = np.cumsum(_WIDTHS)
_STEPS = (64, len(_WIDTHS))  # most Clears lie at the end of a full table; others are found with less work
_CODES_BETWEEN = 48  # smallest average number of codes between two Clears, after the first thousand


def check_codes(data: bytes, path: str | PathLike[str], *, reverse_bits: bool = False) -> None:
    """Check that the first code after each Clear of a stored strip or tile stands for one byte, or ends the data.

    ``reverse_bits`` means that the lowest bit of a byte is the first one (FillOrder 2).

    Raises:
        InputError: another code there, or too many Clears for the table to be of use.
    """
    stored = np.frombuffer(data, np.uint8)
    if reverse_bits:
        stored = np.packbits(np.unpackbits(stored, bitorder="little"))
    padded = np.concatenate([stored, np.zeros(3, np.uint8)])  # a code may be read from three bytes
    bits, place, clears = 8 * len(stored), 0, 0
    while True:
        codes, ends = _codes(padded, place, bits)
        if not len(codes) or codes[0] == END:
            return
        if codes[0] > END:
            raise InputError(path, "LZW data", f"code {codes[0]} first in its table", f"up to {END}")
        marks = np.flatnonzero((codes == CLEAR) | (codes == END))
        if not len(marks) or codes[marks[0]] == END:
            return  # the decoder refuses codes beyond a full table
        place, clears = ends[marks[0]], clears + 1
        if clears > 1000 + bits / (9 * _CODES_BETWEEN):
            found = f"{clears} Clears in {place // 8} bytes"
            raise InputError(path, "LZW data", found, f"one in {_CODES_BETWEEN} codes")


def _codes(padded: np.ndarray, place: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes from a bit after a Clear at least up to the next Clear, and where each ends."""
    for count in _STEPS:
        ends = place + _ENDS[:count]
        ends = ends[ends <= bits]
        widths = _WIDTHS[: len(ends)]
        start = ends - widths
        byte = start >> 3
        three = padded[byte].astype(np.int64) << 16 | padded[byte + 1].astype(np.int64) << 8 | padded[byte + 2]
        codes = three >> (24 - widths - (start & 7)) & ((1 << widths) - 1)
        if ((codes == CLEAR) | (codes == END)).any():
            break
    return codes, ends
