"""Pictures and stacks of them: PNG, JPEG and BMP by Pillow, TIFF by tifffile."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from custom.errors import InputError
from custom.images.codestream import check_codestream
from custom.images.decoding import as_label, check_size, decoding
from custom.images.tiff_layout import check_directories
from custom.images.tiff_lzw import check_codes
from custom.limits import PIXELS

_TIFF_ENDINGS = (".tif", ".tiff")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", *_TIFF_ENDINGS)

_PLAIN_MODES = {"L", "RGB", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MASK, PHOTOMETRIC.PALETTE)
_JPEG = (COMPRESSION.JPEG, COMPRESSION.OJPEG)  # their decoder turns YCbCr into RGB
#: Of the formats Pillow knows; for others it starts programs (EPS).
_FORMATS = ("PNG", "JPEG", "BMP")
#: Some kinds of TIFF name further files, anywhere on the disk; these are not opened.
_ONE_FILE = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
#: Compressions of a TIFF that are formats of pictures with a size of their own, which may be any.
_NESTED = set(tifffile.TIFF.IMAGE_COMPRESSIONS) - set(_JPEG)
_MILLIMETRES = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "mm": 1.0, "cm": 10.0}
_MILLIMETRES |= {"millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "m": 1000.0}


def is_picture(path: str | Path) -> bool:
    """Tell whether a file name ends like a picture."""
    return str(path).lower().endswith(PICTURE_ENDINGS)


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture, or a TIFF stack with a page for each slice.

    8-bit palette and other colour models become RGB, an alpha channel is dropped, 16 and 32 bit grey keep their
    values, and black and white become 0 and 255. An EXIF rotation is not applied, since masks are drawn on the
    stored pixels. Of a TIFF with pages of several sizes, only those like the first are read: the rest are thumbnails.

    Returns:
        (Z, H, W) or (Z, H, W, 3) of the file's dtype; Z = 1 unless it is a stack.

    Raises:
        InputError: the file cannot be read, is larger than ``custom.limits`` allows, or has more axes.
    """
    if str(path).lower().endswith(_TIFF_ENDINGS):
        with _tiff(path) as file:
            return _displayed(*_read_tiff(file, path), path)
    with _picture(path, "picture") as picture:
        if picture.mode not in _PLAIN_MODES:
            picture = picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")
        return np.asarray(picture)[None]  # HxW[x3] -> 1xHxW[x3]


def read_picture_label(path: str | Path) -> np.ndarray:
    """Read a label picture or TIFF stack; the ids of a palette picture are its palette indices.

    Returns:
        (Z, H, W) integers.

    Raises:
        InputError: the file cannot be read, is too large, is a colour picture, or holds no ids.
    """
    if str(path).lower().endswith(_TIFF_ENDINGS):
        with _tiff(path) as file:
            label = _read_tiff(file, path)[0]
    else:
        with _picture(path, "label picture") as picture:
            label = np.asarray(picture)[None]  # HxW -> 1xHxW
    if label.ndim != 3:
        raise InputError(path, "label", f"{label.shape[-1]} channels", "one channel of integer ids")
    return as_label(label, path)


def picture_spacing(path: str | Path) -> tuple[float, float, float] | None:
    """Return the spacing (z, y, x) in mm of a TIFF stack written by ImageJ; None where the file does not tell.

    Raises:
        InputError: it is a TIFF that cannot be read.
    """
    if not str(path).lower().endswith(_TIFF_ENDINGS):
        return None
    with _tiff(path) as file:
        told, tags = file.imagej_metadata or {}, file.pages[0].tags
        unit = str(told.get("unit", "")).replace("\\u00B5", "µ").replace("μ", "µ")  # escaped, or the Greek letter
        steps = [abs(float(told.get("spacing", 0)))]
        for name in ("YResolution", "XResolution"):
            pixels, units = tags[name].value if name in tags else (0, 0)
            steps.append(units / pixels if pixels else 0)
    if unit not in _MILLIMETRES or not all(0 < step < math.inf for step in steps):
        return None
    z, y, x = (round(step * _MILLIMETRES[unit], 9) for step in steps)
    return z, y, x


@contextmanager
def _picture(path: str | Path, kind: str) -> Iterator[Image.Image]:
    with decoding(path, kind), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size says it, as an error
        Image.MAX_IMAGE_PIXELS = PIXELS.value  # Pillow refuses twice as many by itself
        with Image.open(path, formats=_FORMATS) as picture:
            check_size((1, picture.height, picture.width), path, itemsize=4)
            yield picture


class _Errors(logging.Handler):
    """Collects what tifffile only logs: it reads on after a broken page, and gives a stack that is too short."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread, self.texts = threading.get_ident(), []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.texts.append(record.getMessage())


@contextmanager
def _tiff(path: str | Path) -> Iterator[tifffile.TiffFile]:
    logger, errors = logging.getLogger("tifffile"), _Errors()
    logger.addHandler(errors)
    try:
        with decoding(path, "TIFF file"):
            check_directories(path)
            with tifffile.TiffFile(path, **_ONE_FILE) as file:
                yield file
                if errors.texts:
                    raise ValueError(errors.texts[0])
    finally:
        logger.removeHandler(errors)


def _read_tiff(file: tifffile.TiffFile, path: str | Path) -> tuple[np.ndarray, tifffile.TiffPage]:
    """Return the stored values (Z, H, W) or (Z, H, W, S) and the first page, which tells what they mean."""
    series, page = file.series[0], file.pages[0]
    sizes = dict(zip(series.axes, series.shape, strict=True))
    stacked = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS" and n > 1]
    slices = stacked[0][1] if stacked else 1
    single = len(stacked) <= 1 and ("C", slices) not in stacked
    if not {"Y", "X"} <= set(sizes) or not single or sizes.get("S", 1) > 4:
        raise InputError(path, "axes", f"{series.axes} of {series.shape}", "one stack of slices, grey or RGB")
    itemsize = sizes.get("S", 1) * np.dtype(series.dtype).itemsize
    check_size((slices, sizes["Y"], sizes["X"]), path, itemsize=itemsize)
    if page.is_tiled:
        PIXELS.check(math.prod((page.tiledepth, page.tilelength, page.tilewidth)), path, "tile")
    if page.compression in _NESTED:
        found = getattr(page.compression, "name", page.compression)
        raise InputError(path, "compression", found, "none, PackBits, LZW, Deflate, LZMA, Zstd, JPEG")
    if page.compression in _JPEG or page.compression == COMPRESSION.LZW:
        _check_segments(file, series, page, path)
    array = series.asarray()
    if "S" in sizes:
        array = np.moveaxis(array, series.axes.index("S"), -1)
    array = array.reshape(-1, sizes["Y"], sizes["X"], sizes.get("S", 1))  # [...x]YxX[xS] -> ZxHxWxS
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    array = array.astype(dtype, copy=False)
    return (array if array.shape[-1] > 1 else array[..., 0]), page


def _check_segments(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, first: tifffile.TiffPage, path: str | Path
) -> None:
    """Check the sizes that the JPEG strips or tiles of a TIFF declare themselves, and the codes of LZW ones."""
    jpeg = first.compression in _JPEG
    if jpeg:
        check_codestream(first.jpegtables or b"", path)
    for page in series.pages:
        if page is not None:
            for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False):
                file.filehandle.seek(offset)
                data = file.filehandle.read(size)
                if jpeg:
                    check_codestream((first.jpegheader or b"") + data, path)
                else:
                    check_codes(data, path, reverse_bits=first.fillorder == 2)


def _displayed(array: np.ndarray, page: tifffile.TiffPage, path: str | Path) -> np.ndarray:
    """Turn stored values into grey or RGB."""
    photometric, samples = page.photometric, array.shape[3] if array.ndim == 4 else 1
    jpeg = page.compression in _JPEG
    if photometric in _GREY and samples <= 2:
        grey = array if array.ndim == 3 else array[..., 0]  # the second sample is alpha
    elif samples >= 3 and (photometric == PHOTOMETRIC.RGB or (photometric == PHOTOMETRIC.YCBCR and jpeg)):
        return array[..., :3]
    else:
        found = f"{samples} samples as {getattr(photometric, 'name', photometric)}"
        raise InputError(path, "colours", found, "grey, palette or RGB, with or without alpha")
    if grey.dtype == bool:
        grey = grey.astype(np.uint8) * 255
    if photometric == PHOTOMETRIC.MINISWHITE and grey.dtype.kind == "u":
        return np.iinfo(grey.dtype).max - grey
    if photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        colours = (page.colormap >> 8).astype(np.uint8).T  # 3xN of 16 bit -> Nx3 of 8 bit
        return colours[grey] if (colours != colours[:, :1]).any() else colours[:, 0][grey]
    return grey
