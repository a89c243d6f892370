"""Directories of TIFF files, made by hand: each has an offset, tags, and the offset of the next."""

import struct

import numpy as np
import pytest
import tifffile

from custom.errors import InputError
from custom.images.formats import tiff
from custom.images.tiff_layout import check_directories

SUB_IFDS, LONG, BYTE = 330, 4, 1


def write(path, directories, *, size=4096, first=16, order="<"):
    """Write {place: (tags, next)} into a file; a tag is (number, type, count, value)."""
    content = bytearray(size)
    content[:8] = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, first)
    for place, (tags, following) in directories.items():
        raw = struct.pack(f"{order}H", len(tags)) + b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
        raw += struct.pack(f"{order}I", following)
        content[place : place + len(raw)] = raw
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", "<>")
def test_directories_that_end(tmp_path, order):
    tags = [(256, LONG, 1, 5), (SUB_IFDS, LONG, 1, 600)]
    check_directories(write(tmp_path / "a.tif", {16: (tags, 300), 300: ([], 0), 600: ([], 0)}, order=order))


@pytest.mark.parametrize(
    ("directories", "message"),
    [
        ({16: ([], 16)}, "page 1 leads back to an earlier one"),
        ({16: ([], 40), 40: ([], 64), 64: ([], 40)}, "page 3 leads back"),
        ({16: ([(n, BYTE, 4000, 0) for n in range(20)], 0)}, "overlap endlessly"),  # each value is the whole file
        ({16: ([(n, BYTE, 1, 0) for n in range(340)], 18)}, "overlap endlessly|cut off"),
        ({16: ([(SUB_IFDS, LONG, 1, 16)] * 30, 0)}, "overlap endlessly"),  # a directory within itself
        ({16: ([], 10**6)}, "cut off at byte 1000000"),
    ],
)
def test_directories_that_do_not(tmp_path, directories, message):
    with pytest.raises(InputError, match=message):
        check_directories(write(tmp_path / "a.tif", directories))


def test_number_of_pages(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 8, 9), np.uint8), photometric="minisblack")
    assert tiff.read(tmp_path / "a.tif").array.shape == (5, 8, 9)
    monkeypatch.setenv("MCP_MEDSAM_MAX_SLICES", "4")
    with pytest.raises(InputError, match="found 5 slices or frames"):
        tiff.read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "options", [{"bigtiff": True}, {"byteorder": ">"}, {"ome": True}, {"imagej": True}, {"subifds": 1}]
)
def test_what_tifffile_writes(tmp_path, options):
    with tifffile.TiffWriter(tmp_path / "a.tif", **{k: v for k, v in options.items() if k != "subifds"}) as file:
        file.write(np.zeros((5, 16, 16), np.uint8), photometric="minisblack", subifds=options.get("subifds"))
        if "subifds" in options:
            file.write(np.zeros((5, 8, 8), np.uint8), photometric="minisblack", subfiletype=1)
    check_directories(tmp_path / "a.tif")


def test_what_is_no_tiff(tmp_path):
    for content in (b"", b"II", b"no picture at all"):
        (tmp_path / "a.tif").write_bytes(content)
        check_directories(tmp_path / "a.tif")  # the decoder reports it
        with pytest.raises(InputError):
            tiff.read(tmp_path / "a.tif")
