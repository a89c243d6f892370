"""Decode the pixels of one DICOM file to grey values or RGB."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, pixel_array
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, JPEGLSNearLossless

from custom.errors import InputError
from custom.images import dicom_jpeg
from custom.images.codestream import check_codestream
from custom.images.decoding import check_size, decoding
from custom.images.dicom_planes import frame_group

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SYNTAXES = "intact data: uncompressed, RLE, JPEG, lossless JPEG, JPEG-LS or JPEG 2000"
#: Transfer syntax -> pydicom's name of its decoder. Named, because GDCM, which would come first if installed,
#: crashes the process on some corrupt files.
_DECODERS: dict[UID, str] = {
    JPEGBaseline8Bit: "pillow",
    **dict.fromkeys(dicom_jpeg.DECODER_DEPENDENCIES, "imagecodecs"),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((JPEG2000, JPEG2000Lossless), "pillow"),
}
for _syntax in dicom_jpeg.DECODER_DEPENDENCIES:
    get_decoder(_syntax).add_plugin("imagecodecs", (dicom_jpeg.__name__, "decode_frame"))


def decode_frames(dataset: Dataset, path: str) -> list[np.ndarray]:
    """Decode the frames of a file.

    - Grey: (H, W), stored value x rescale slope + intercept of that frame (or its modality table), so HU for CT; an
      integer dtype if slope and intercept are whole, else float32. MONOCHROME1 is inverted within the stored
      range, so that bright is always bright.
    - Colour (RGB, YBR, palette): (H, W, 3) RGB, stored dtype, a palette uint8.

    Raises:
        InputError: there are no pixels, the transfer syntax has no decoder here, or the bytes are corrupt.
    """
    with decoding(path, "DICOM file"):
        if not any(keyword in dataset for keyword in _PIXELS):
            raise InputError(path, "PixelData", "nothing", "an image with pixels")
        count = int(dataset.get("NumberOfFrames") or 1)
        check_size((count, int(dataset.Rows), int(dataset.Columns)), path, itemsize=pixel_bytes(dataset))
        check_frames(dataset, path)
        if dataset.get("TotalPixelMatrixColumns") and count > 1:
            raise InputError(path, "TotalPixelMatrixColumns", "a tiled image", "an image in one piece")
        samples = int(dataset.get("SamplesPerPixel") or 1)
        if samples not in (1, 3):
            raise InputError(path, "SamplesPerPixel", samples, "1, 3")
        array = _decoded(dataset, path)
        frames = array.reshape(count, *array.shape[-2 if samples == 1 else -3 :])  # [F]xHxW[x3] -> FxHxW[x3]
        return [_values(frame, dataset, number) for number, frame in enumerate(frames, 1)]


def pixel_bytes(header: Dataset) -> int:
    """Return the bytes of a decoded pixel, all its samples together, as a header declares them."""
    return int(header.get("SamplesPerPixel") or 1) * -(-int(header.get("BitsAllocated") or 64) // 8)


def check_frames(dataset: Dataset, path: str) -> None:
    """Check the sizes that compressed frames declare themselves.

    Raises:
        InputError: one has more pixels than ``custom.limits`` allows.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_transfer_syntax and syntax.is_encapsulated and "PixelData" in dataset:
        for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
            check_codestream(frame, path)


def _decoded(dataset: Dataset, path: str) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        return pixel_array(dataset, decoding_plugin=_DECODERS.get(syntax, ""))
    except (NotImplementedError, RuntimeError) as error:  # no decoder known, none installed, or all failed
        found = f"{syntax} ({syntax.name}), which cannot be decoded ({' '.join(str(error).split())[:200]})"
        raise InputError(path, "TransferSyntaxUID", found, _SYNTAXES) from error


def _values(frame: np.ndarray, dataset: Dataset, number: int) -> np.ndarray:
    if frame.ndim == 3:
        return frame
    kind = dataset.get("PhotometricInterpretation")
    if kind == "PALETTE COLOR":
        colour = apply_color_lut(frame, dataset)
        if "RedPaletteColorLookupTableData" in dataset and not dataset.original_encoding[1]:
            colour = colour.byteswap()  # pydicom reads each table as little endian
        return colour if colour.itemsize == 1 else (colour >> 8).astype(np.uint8)
    if kind == "MONOCHROME1" and frame.dtype.kind in "ui":
        # Lowest + highest stored value: 2^bits - 1 unsigned, -1 signed; in the frame's own dtype.
        frame = (1 << int(dataset.BitsStored)) - 1 - frame if frame.dtype.kind == "u" else -1 - frame
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(frame, dataset)
    group = frame_group(dataset, number, "PixelValueTransformationSequence") or dataset
    slope, intercept = group.get("RescaleSlope"), group.get("RescaleIntercept")
    return _rescale(frame, 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))


def _rescale(frame: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if (slope, intercept) == (1.0, 0.0):
        return frame
    if frame.dtype.kind == "f" or slope != int(slope) or intercept != int(intercept):
        return (frame * slope + intercept).astype(np.float32)
    values = frame.astype(np.int64) * int(slope) + int(intercept)
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= values.min() and values.max() <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values
