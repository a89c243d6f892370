"""Readers of images and of DICOM label objects, each with the smallest valid files that reach all of it."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    RTStructureSetStorage,
)

from custom.errors import InputError
from custom.images.dicom import list_series, read_series
from custom.images.dicom_labels import label_references
from custom.images.dicom_rtstruct import read_rtstruct
from custom.images.dicom_seg import read_seg
from custom.images.dicom_seg_writing import write_seg
from custom.images.reading import read_image, read_labels
from tests.custom.conftest import axial_series
from tests.reliability.fuzz import Target
from tests.reliability.mutation import mutate_bytes, mutate_gzip, mutate_png, sometimes

Read = Callable[[Path], object]
_RNG = np.random.default_rng(0)
GREY = _RNG.integers(0, 256, (12, 16), np.uint8)
COLOUR = _RNG.integers(0, 256, (12, 16, 3), np.uint8)
VOLUME = _RNG.integers(-900, 900, (3, 8, 10)).astype(np.int16)
VOLUME_LABEL = np.zeros((3, 8, 10), np.uint8)
VOLUME_LABEL[:, 2:7, 2:8] = 1
AFFINE = np.diag((-0.8, -0.9, 2.5, 1.0))


def _all(read: Read, *others: Read) -> Read:
    """Let several readers read the same file; the result of the first one counts."""
    return partial(_read_all, read, others)


def _read_all(read: Read, others: Iterable[Read], path: Path) -> None:
    for other in others:
        try:
            other(path)
        except InputError:
            continue
    read(path)


# --- pictures ---


def _encoded(array: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(file, kind, **options)
    return file.getvalue()


def _pngs(folder: Path) -> list[bytes]:
    palette = Image.fromarray(GREY % 8).convert("P")
    pictures = (GREY, COLOUR, GREY.astype(np.uint16) * 200, np.dstack([COLOUR, GREY]), palette, GREY > 99)
    return [*(_encoded(picture, "PNG") for picture in pictures), _encoded(COLOUR, "PNG", dpi=(72, 72), optimize=True)]


def _jpegs(folder: Path) -> list[bytes]:
    exif = Image.Exif()
    exif[274] = 6
    return [_encoded(GREY, "JPEG"), _encoded(COLOUR, "JPEG", progressive=True), _encoded(COLOUR, "JPEG", exif=exif)]


def _bmps(folder: Path) -> list[bytes]:
    return [_encoded(GREY, "BMP"), _encoded(COLOUR, "BMP"), _encoded(GREY > 99, "BMP")]


def _webps(folder: Path) -> list[bytes]:
    exif = Image.Exif()
    exif[274] = 8
    return [
        _encoded(COLOUR, "WEBP"),
        _encoded(GREY, "WEBP", lossless=True, exif=exif),
        _encoded(np.dstack([COLOUR, GREY]), "WEBP"),
    ]


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def _tiffs(folder: Path) -> list[bytes]:
    stack = VOLUME_LABEL * 9
    return [
        _tiff(GREY),
        _tiff(COLOUR, compression="zlib", predictor=True),
        _tiff(COLOUR, compression="jpeg"),
        _tiff(stack, imagej=True, metadata={"axes": "ZYX", "spacing": 2.5, "unit": "mm"}, resolution=(1.2, 1.2)),
        _tiff(np.pad(GREY, 2), tile=(16, 16), compression="lzw", bigtiff=True),
        _tiff(stack.astype(np.float32), compression="packbits", byteorder=">"),
        _tiff(stack, metadata={"axes": "ZYX"}, ome=True),
        _tiff(GREY, photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256) * 80),
    ]


# --- volumes ---


def _niftis(folder: Path) -> list[bytes]:
    arrays = (VOLUME.T, VOLUME_LABEL.T, VOLUME.T.astype(np.float32) / 7, VOLUME_LABEL[0].T, np.stack([VOLUME.T], -1))
    volumes = [nib.Nifti1Image(array, AFFINE) for array in arrays]
    volumes.append(nib.Nifti2Image(VOLUME.T, AFFINE))
    scaled = nib.Nifti1Image(VOLUME.T, AFFINE)
    scaled.header.set_slope_inter(2.0, 5.0)
    return [volume.to_bytes() for volume in (*volumes, scaled)]


def _pairs(folder: Path) -> list[bytes]:
    """Return headers for the volume beside them."""
    headers = []
    for kind in (nib.Spm2AnalyzeImage, nib.Nifti2Pair, nib.Nifti1Pair):
        nib.save(kind(VOLUME.T, np.diag((-1.0, 1, 1, 1))), folder / "a.img")
        headers.append((folder / "a.hdr").read_bytes())
        (folder / "a.mat").unlink(missing_ok=True)
    return headers


def _mgzs(folder: Path) -> list[bytes]:
    arrays = (VOLUME.T, VOLUME_LABEL.T, VOLUME.T.astype(np.float32), np.stack([VOLUME.T] * 2, -1))
    return [gzip.compress(nib.MGHImage(array, AFFINE).to_bytes(), 1) for array in arrays]


def _itks(ending: str, folder: Path) -> list[bytes]:
    images = [sitk.GetImageFromArray(array) for array in (VOLUME, VOLUME_LABEL, GREY, VOLUME.astype(np.float32))]
    images.append(sitk.GetImageFromArray(COLOUR, isVector=True))
    written = []
    for image, packed in ((image, packed) for image in images for packed in (False, True)):
        sitk.WriteImage(image, str(folder / f"b{ending}"), packed)
        written.append((folder / f"b{ending}").read_bytes())
    return written


# --- DICOM ---


def _series(folder: Path) -> list[bytes]:
    axial_series(folder, VOLUME)
    return [(folder / "007.dcm").read_bytes()]


def _read_folder(path: Path) -> None:
    list_series(path.parent)
    read_image(path.parent)


def _compressed(dataset: Dataset, syntax: str, frame: bytes) -> Dataset:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.add_new("PixelData", "OB", encapsulate([frame]))
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _dicoms(folder: Path) -> list[bytes]:
    axial_series(folder / "one", VOLUME[:1], RescaleSlope=2, RescaleIntercept=-9, ImageType=["ORIGINAL", "PRIMARY"])
    one = folder / "one" / "000.dcm"
    grey = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    colour = grey | {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    shape = {"Rows": 12, "Columns": 16}
    datasets = [dcmread(one), dcmread(one)]
    datasets[1].compress(RLELossless)
    for tags, content in ((grey, GREY), (colour, COLOUR), (grey | {"NumberOfFrames": 4}, np.stack([GREY] * 4))):
        dataset = dcmread(one)
        dataset.update(_item(**shape, **tags, Modality="US"))
        dataset["PixelData"].value = content.tobytes()
        datasets.append(dataset)
    for syntax, encode in (
        (JPEGBaseline8Bit, imagecodecs.jpeg_encode),
        (JPEGLosslessSV1, partial(imagecodecs.jpeg8_encode, lossless=True, predictor=1)),
        (JPEG2000Lossless, partial(imagecodecs.jpeg2k_encode, codecformat="j2k", reversible=True)),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
    ):
        dataset = dcmread(one)
        dataset.update(_item(**shape, **grey))
        datasets.append(_compressed(dataset, syntax, bytes(encode(GREY))))
    return [_saved(dataset) for dataset in datasets]


def _saved(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item


def _segs(folder: Path) -> list[bytes]:
    series = read_series(axial_series(folder / "ct", VOLUME))
    write_seg(folder / "a.seg", VOLUME_LABEL, {1: "liver", 2: "none"}, series)
    return [(folder / "a.seg").read_bytes()]


def _rtstructs(folder: Path) -> list[bytes]:
    series = read_series(axial_series(folder / "ct", VOLUME))
    corners = np.array([[2, 2, 1, 1], [2, 6, 1, 1], [7, 6, 1, 1], [7, 2, 1, 1]])  # column, row, slice
    points = (corners @ series.geometry.affine.T)[:, :3] * (-1, -1, 1)
    contour = _item(ContourGeometricType="CLOSED_PLANAR", ContourData=[f"{x:.4f}" for x in points.ravel()])
    referenced = _item(SeriesInstanceUID=series.uid, ContourImageSequence=[_item(ReferencedSOPInstanceUID="1.2.3.9.1")])
    study = _item(RTReferencedSeriesSequence=[referenced])
    structures = dcmread(next((folder / "ct").iterdir()), stop_before_pixels=True)
    structures.update(
        _item(
            SOPClassUID=RTStructureSetStorage,
            Modality="RTSTRUCT",
            ReferencedFrameOfReferenceSequence=[
                _item(FrameOfReferenceUID="1.2.3.5", RTReferencedStudySequence=[study]),
            ],
            StructureSetROISequence=[_item(ROINumber=3, ROIName="a", ReferencedFrameOfReferenceUID="1.2.3.5")],
            ROIContourSequence=[_item(ReferencedROINumber=3, ContourSequence=[contour, contour])],
        )
    )
    return [_saved(structures)]


def _read_label(read: Callable[..., object], path: Path) -> None:
    label_references(path)
    if path.parent not in _SERIES:
        _SERIES[path.parent] = read_series(path.parent / "ct")
    read(path, _SERIES[path.parent])


_SERIES: dict[Path, Any] = {}


def _gzipped(seeds: Callable[[Path], Sequence[bytes]], folder: Path) -> list[bytes]:
    return [gzip.compress(seed, 1) for seed in seeds(folder)]


_IMAGE = _all(read_image, read_labels)
_DICOM = partial(mutate_bytes, first=132)  # after the preamble and its mark

IMAGE_TARGETS: dict[str, Target] = {
    "png": Target("a.png", _pngs, _IMAGE, sometimes(mutate_png)),
    "jpeg": Target("a.jpg", _jpegs, _IMAGE),
    "bmp": Target("a.bmp", _bmps, _IMAGE),
    "webp": Target("a.webp", _webps, _IMAGE),
    "tiff": Target("a.tif", _tiffs, _IMAGE),
    "nifti": Target("a.nii", _niftis, _IMAGE),
    "nifti_gz": Target("a.nii.gz", partial(_gzipped, _niftis), _IMAGE, sometimes(mutate_gzip)),
    "nifti_pair": Target("a.hdr", _pairs, _IMAGE),
    "mgz": Target("a.mgz", _mgzs, _IMAGE, sometimes(mutate_gzip)),
    "nrrd": Target("a.nrrd", partial(_itks, ".nrrd"), _IMAGE),
    "metaimage": Target("a.mha", partial(_itks, ".mha"), _IMAGE),
    "dicom": Target("a.dcm", _dicoms, read_image, _DICOM),
    "dicom_series": Target("007.dcm", _series, _read_folder, _DICOM),
    "dicom_seg": Target("b.seg", _segs, partial(_read_label, read_seg), _DICOM),
    "rtstruct": Target("b.dcm", _rtstructs, partial(_read_label, read_rtstruct), _DICOM),
}
