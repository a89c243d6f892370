"""Pages of TIFF files, decoded by tifffile after checks of what they declare."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from custom.errors import InputError
from custom.images.codestream import check_codestream
from custom.images.decoding import check_size, decoding
from custom.images.tiff_layout import check_directories
from custom.images.tiff_lzw import check_codes
from custom.limits import PIXELS

_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MASK, PHOTOMETRIC.PALETTE)
_JPEG = (COMPRESSION.JPEG, COMPRESSION.OJPEG)  # their decoder turns YCbCr into RGB
#: Some kinds of TIFF refer to other files, anywhere on the disk; these are not opened.
_ONE_FILE = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
#: Compressions of a TIFF that are picture formats with their own size, which may be anything.
_NESTED = set(tifffile.TIFF.IMAGE_COMPRESSIONS) - set(_JPEG)


class _Errors(logging.Handler):
    """Collects what tifffile only logs: it continues after a broken page and returns a stack that is too short."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread, self.texts = threading.get_ident(), []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.texts.append(record.getMessage())


@contextmanager
def open_tiff(path: str | PathLike[str]) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF after a check of its directories; whatever goes wrong with it is an error.

    Raises:
        InputError: it is not a TIFF, cannot be read, or its XML declares entities.
    """
    logger, errors = logging.getLogger("tifffile"), _Errors()
    logger.addHandler(errors)
    try:
        with decoding(path, "TIFF file"):
            check_directories(path)
            with tifffile.TiffFile(path, **_ONE_FILE) as file:
                if "<!DOCTYPE" in file.pages[0].description:  # tifffile parses XML there: entities can grow and read
                    raise InputError(path, "ImageDescription", "XML with a DOCTYPE", "XML without one")
                yield file
                if errors.texts:
                    raise ValueError(errors.texts[0])
    finally:
        logger.removeHandler(errors)


def stored_values(file: tifffile.TiffFile, path: str | PathLike[str]) -> np.ndarray:
    """Return the stored values of the first series, (Z, H, W) or (Z, H, W, S), native byte order.

    If pages differ in size, only those like the first count: the rest are thumbnails.

    Raises:
        InputError: it is larger than ``custom.limits`` allows, has more axes, or another compression.
    """
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
    return array if array.shape[-1] > 1 else array[..., 0]


def displayed(array: np.ndarray, page: tifffile.TiffPage, path: str | PathLike[str]) -> np.ndarray:
    """Turn stored values into grey or RGB, as a page declares their meaning: (Z, H, W) or (Z, H, W, 3).

    Raises:
        InputError: another colour model.
    """
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


def _check_segments(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, first: tifffile.TiffPage, path: str | PathLike[str]
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
