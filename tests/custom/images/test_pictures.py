import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from custom.errors import InputError
from custom.images.pictures import is_picture, picture_spacing, read_picture, read_picture_label

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (6, 7), np.uint8)
GREY16 = RNG.integers(0, 65536, (6, 7), np.uint16)
RGB = RNG.integers(0, 256, (6, 7, 3), np.uint8)
STACK8, STACK16 = RNG.integers(0, 256, (4, 6, 7), np.uint8), RNG.integers(0, 65536, (4, 6, 7), np.uint16)


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (1, 6, 7), np.uint8),
        ("RGB", (1, 6, 7, 3), np.uint8),
        ("RGBA", (1, 6, 7, 3), np.uint8),
        ("LA", (1, 6, 7), np.uint8),
        ("P", (1, 6, 7, 3), np.uint8),
        ("1", (1, 6, 7), np.uint8),
        ("I;16", (1, 6, 7), np.uint16),
    ],
)
def test_picture_modes(tmp_path, mode, shape, dtype):
    picture = Image.fromarray(GREY16) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / "p.png")
    array = read_picture(tmp_path / "p.png")
    assert array.shape == shape and array.dtype == dtype
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(array[0], RGB)
    if mode == "I;16":
        np.testing.assert_array_equal(array[0], GREY16)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "TIF"])
@pytest.mark.parametrize("array", [GREY8, RGB], ids=["grey", "rgb"])
def test_formats_without_loss(tmp_path, ending, array):
    Image.fromarray(array).save(tmp_path / f"p.{ending}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"p.{ending}"), array[None])
    assert is_picture(tmp_path / f"p.{ending}")


def test_jpeg_is_what_pillow_reads_without_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.fromarray(RGB).save(tmp_path / "p.jpg", exif=exif)
    array = read_picture(tmp_path / "p.jpg")
    assert array.shape == (1, 6, 7, 3)
    np.testing.assert_array_equal(array[0], np.asarray(Image.open(tmp_path / "p.jpg")))


@pytest.mark.parametrize(
    "array",
    [GREY8, GREY16, GREY16.astype(">u2"), GREY16.astype(np.float32) / 7, RGB, RGB.astype(np.uint16) * 257]
    + [STACK8, STACK16, STACK16.astype(np.int16), STACK16.astype(np.float32), np.stack([RGB, RGB[::-1]])],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiff_values(tmp_path, array, compression):
    colours = "rgb" if array.shape[-1] == 3 else "minisblack"
    byteorder = ">" if array.dtype.str.startswith(">") else "<"
    tifffile.imwrite(
        tmp_path / "p.tif", array, photometric=colours, compression=compression, byteorder=byteorder, metadata=None
    )
    read = read_picture(tmp_path / "p.tif")
    np.testing.assert_array_equal(read, array if array.ndim - (colours == "rgb") == 3 else array[None])
    assert read.dtype == array.dtype.newbyteorder("=") and read.dtype.isnative


def test_tiff_colours(tmp_path):
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_picture(path)[0], RGB)
    tifffile.imwrite(path, np.dstack([RGB, GREY8]), photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_picture(path)[0], RGB)
    tifffile.imwrite(path, GREY8, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(path)[0], 255 - GREY8)
    np.testing.assert_array_equal(read_picture_label(path)[0], GREY8)
    Image.fromarray(np.dstack([GREY8, GREY8[::-1]]), "LA").save(path)
    np.testing.assert_array_equal(read_picture(path)[0], GREY8)
    Image.fromarray(GREY8 > 99).save(path)
    np.testing.assert_array_equal(read_picture(path)[0], (GREY8 > 99) * 255)
    np.testing.assert_array_equal(read_picture_label(path)[0], GREY8 > 99)
    tifffile.imwrite(path, np.kron(RGB, np.ones((8, 8, 1), np.uint8)), photometric="rgb", compression="jpeg")
    assert tifffile.TiffFile(path).pages[0].photometric == tifffile.PHOTOMETRIC.YCBCR
    np.testing.assert_allclose(read_picture(path)[0], np.asarray(Image.open(path).convert("RGB")), atol=2)


def test_tiff_palette(tmp_path):
    path, colours = tmp_path / "p.tif", RNG.integers(0, 256, (256, 3), np.uint8)
    tifffile.imwrite(path, GREY8, photometric="palette", colormap=colours.T.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_picture(path)[0], colours[GREY8])
    np.testing.assert_array_equal(read_picture_label(path)[0], GREY8)
    ramp = np.arange(255, -1, -1, dtype=np.uint16) * 257
    tifffile.imwrite(path, GREY8, photometric="palette", colormap=np.stack([ramp] * 3))
    np.testing.assert_array_equal(read_picture(path)[0], 255 - GREY8)


@pytest.mark.parametrize("stack", [STACK8, STACK16, STACK16.astype(np.float32)], ids=lambda stack: str(stack.dtype))
@pytest.mark.parametrize(("unit", "mm"), [("um", 1e-3), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1), ("cm", 10)])
def test_imagej_stack_with_spacing(tmp_path, stack, unit, mm):
    path = tmp_path / "s.tif"
    told = {"axes": "ZYX", "spacing": 2.5, "unit": unit}
    tifffile.imwrite(path, stack, imagej=True, metadata=told, resolution=(4, 2))  # pixels a unit, x and y
    np.testing.assert_array_equal(read_picture(path), stack)
    np.testing.assert_allclose(picture_spacing(path), np.multiply((2.5, 0.5, 0.25), mm))


@pytest.mark.parametrize(
    "told", [{"unit": "um"}, {"spacing": 2.0}, {"spacing": 2.0, "unit": "pixel"}, {"spacing": 0.0, "unit": "um"}]
)
def test_imagej_stack_without_spacing(tmp_path, told):
    tifffile.imwrite(tmp_path / "s.tif", STACK8, imagej=True, metadata={"axes": "ZYX"} | told, resolution=(4, 2))
    assert picture_spacing(tmp_path / "s.tif") is None


def test_other_files_have_no_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", STACK8, resolution=(4, 2))
    assert picture_spacing(tmp_path / "s.tif") is None
    assert picture_spacing(tmp_path / "s.png") is None


def test_label_stack_and_thumbnail(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        file.write(STACK16, photometric="minisblack")
        file.write(GREY8[:3, :3])
    np.testing.assert_array_equal(read_picture_label(tmp_path / "s.tif"), STACK16)


def test_palette_label_keeps_indices(tmp_path):
    ids = RNG.integers(0, 4, (5, 6), np.uint8)
    picture = Image.fromarray(ids, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_picture_label(tmp_path / "l.png")[0], ids)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "missing"])
def test_bad_picture(tmp_path, kind, ending):
    path = tmp_path / f"bad.{ending}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "missing":
        path.unlink()
    else:
        path.write_text("no picture" * (kind == "text"))
    for read in (read_picture, read_picture_label):
        with pytest.raises(InputError, match=rf"bad\.{ending}: file") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("told", [{"imagej": True}, {"metadata": None}], ids=["imagej", "pages"])
def test_stack_cut_within_its_pages_is_not_read_in_part(tmp_path, told):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, np.tile(STACK8, (1, 9, 9)), photometric="minisblack", **told)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"s\.tif: file"):
        read_picture(path)


def test_colour_label_is_refused(tmp_path):
    for name in ("l.png", "l.tif"):
        Image.fromarray(RGB).save(tmp_path / name)
        with pytest.raises(InputError, match="3 channels"):
            read_picture_label(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "options", "match"),
    [
        (np.stack([STACK8, STACK8]), {}, "axes"),
        (STACK8[:2], {"imagej": True, "metadata": {"axes": "CYX"}}, "axes"),
        (np.stack([STACK8, STACK8], 1), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "axes"),
        (GREY8.astype(np.complex64), {}, "label: found dtype"),
        (np.dstack([RGB, GREY8]), {"photometric": "separated"}, "colours"),
    ],
    ids=["QQYX", "CYX", "ZCYX", "complex", "cmyk"],
)
def test_tiff_of_another_kind(tmp_path, array, options, match):
    tifffile.imwrite(tmp_path / "p.tif", array, **{"photometric": "minisblack"} | options)
    with pytest.raises(InputError, match=match):
        (read_picture_label if "label" in match else read_picture)(tmp_path / "p.tif")


def png_that_declares(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [10_000, 60_000], ids=["where Pillow warns", "where Pillow raises"])
@pytest.mark.parametrize("read", [read_picture, read_picture_label])
def test_png_bomb(tmp_path, width, read, recwarn):
    (tmp_path / "bomb.png").write_bytes(png_that_declares(width, 10_000))
    with pytest.raises(InputError, match=r"bomb\.png: .*pixels"):
        read(tmp_path / "bomb.png")
    assert not recwarn.list


@pytest.mark.parametrize("read", [read_picture, read_picture_label])
def test_tiff_bomb(tmp_path, read):
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, GREY8, compression="zlib", rowsperstrip=6, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(60_000)
    with pytest.raises(InputError, match=r"bomb\.tif: size: found 1 x 60000 x 60000 .*; allowed: at most"):
        read(path)
