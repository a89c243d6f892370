"""A decoder for pydicom, by libjpeg-turbo: lossless JPEG and 12-bit JPEG. Corrupt data never end the process."""

from __future__ import annotations

import imagecodecs
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import UID, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

#: What pydicom expects of a decoder module: transfer syntax -> packages.
DECODER_DEPENDENCIES = {syntax: ("imagecodecs",) for syntax in (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)}


def is_available(uid: UID) -> bool:
    """Return whether a transfer syntax can be decoded."""
    return uid in DECODER_DEPENDENCIES and imagecodecs.JPEG8.available


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame to its stored values, in the order row, column, sample; colours are not converted.

    Raises:
        ValueError: the data are corrupt, or have another size than the header declares.
    """
    # The same colours in and out: values stay as they are, and pydicom converts them afterwards.
    colours = {} if runner.samples_per_pixel == 1 else {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}
    try:
        frame = imagecodecs.jpeg8_decode(source, **colours)  # HxW[x3]
    except imagecodecs.Jpeg8Error as error:
        raise ValueError(str(error)) from error
    samples = (runner.samples_per_pixel,) if runner.samples_per_pixel > 1 else ()
    if frame.shape != (runner.rows, runner.columns, *samples):
        raise ValueError(f"a JPEG of shape {frame.shape}, not {(runner.rows, runner.columns, *samples)}")
    runner.set_option("bits_allocated", frame.itemsize * 8)
    runner.set_option("planar_configuration", 0)
    unused = frame.itemsize * 8 - runner.bits_stored
    if runner.pixel_representation and unused > 0:  # the highest stored bit is the sign
        frame = (frame << unused).view(f"i{frame.itemsize}") >> unused
    return frame.tobytes()
