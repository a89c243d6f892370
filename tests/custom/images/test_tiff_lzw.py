import struct

import imagecodecs
import numpy as np
import pytest
import tifffile

from custom.errors import InputError
from custom.images.formats import tiff
from custom.images.tiff_lzw import CLEAR, END, check_codes


def packed(codes):
    """Write codes one by one with the widths of TIFF 6.0: the table grows with every code but the first."""
    bits, entries = "", None
    for code in codes:
        entries = 258 if entries is None else entries + 1
        bits += f"{code:0{9 + (entries > 511) + (entries > 1023) + (entries > 2047)}b}"
        if code == CLEAR:
            entries = None
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("values", [2, 256])
@pytest.mark.parametrize("size", [0, 1, 300, 3_000, 100_000])  # the last one fills the table several times
def test_what_an_encoder_writes(size, values):
    content = np.random.default_rng(size).integers(0, values, size, np.uint8).tobytes()
    check_codes(imagecodecs.lzw_encode(content), "a.tif")


@pytest.mark.parametrize("before", [0, 1, 100, 253, 254, 255, 766, 767, 1790, 1791, 3837])  # every width, and its ends
def test_first_code_of_a_table(before):
    head = [CLEAR, *[65] * before, CLEAR]
    for code in (0, 255, CLEAR, END):
        check_codes(packed([*head, code, 65, END]), "a.tif")
    for code in (258, 511):
        with pytest.raises(InputError, match=f"a.tif: LZW data: found code {code} first in its table; allowed: up to"):
            check_codes(packed([*head, code, 65, END]), "a.tif")


def test_what_follows_the_end_is_not_looked_at():
    check_codes(packed([CLEAR, 65, END, CLEAR, 300]), "a.tif")
    check_codes(packed([CLEAR, 65]), "a.tif")


def test_reversed_bits():
    data = imagecodecs.bitorder_decode(packed([CLEAR, 300, END]))
    with pytest.raises(InputError, match="code 300 first"):
        check_codes(data, "a.tif", reverse_bits=True)


def test_clears_without_end():
    check_codes(packed([CLEAR] * 900), "a.tif")
    check_codes(packed([CLEAR, *[65] * 100] * 5000), "a.tif")
    with pytest.raises(InputError, match="Clears in"):
        check_codes(packed([CLEAR, 65] * 5000), "a.tif")


@pytest.mark.parametrize("fill_order", [1, 2])
def test_damaged_strip_of_a_file(tmp_path, fill_order):
    """The decoder crashed the process on such a strip."""
    path, picture = tmp_path / "a.tif", np.arange(320, dtype=np.uint8).reshape(16, 20)
    good, bad = packed([CLEAR, *picture.ravel(), END]), packed([CLEAR, 1, CLEAR, 300, *picture.ravel()[:-2], END])
    write(path, good, picture.shape, fill_order)
    assert np.array_equal(tiff.read(path).array[0], picture)
    write(path, bad, picture.shape, fill_order)
    with pytest.raises(InputError, match="a.tif: LZW data: found code 300"):
        tiff.read(path)


def write(path, data, shape, fill_order):
    """Write a TIFF of one strip; tifffile writes no FillOrder, so another tag is renamed."""
    data = imagecodecs.bitorder_decode(data) if fill_order == 2 else data
    tifffile.imwrite(path, iter([data]), shape=shape, dtype=np.uint8, compression="lzw", software="a", metadata=None)
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["Software"].offset
    content = bytearray(path.read_bytes())
    content[place : place + 12] = struct.pack("<HHIHH", 266, 3, 1, fill_order, 0)
    path.write_bytes(content)
