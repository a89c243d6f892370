"""Write masks as files of the source's kind, on the source's grid."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from custom.files import write_whole
from custom.images.nifti import write_nifti
from custom.inference.npz import write_segs
from custom.inference.sources import InputImage

_QUICK = 2  # a third of the time for a sixth more bytes


def mask_ending(image: InputImage) -> str:
    """Return the ending of the mask files of an image.

    Pictures get PNG, TIFF stacks TIFF, NIfTI NIfTI, npz npz, DICOM a DICOM SEG. A SEG cannot refer to a cine loop,
    which gets a TIFF stack, nor to a volume of several multi-frame files, which gets NIfTI.
    """
    if image.format == "dicom" and not _can_be_referred_to(image):
        return ".tif" if image.geometry is None else ".nii.gz"
    return {"picture": ".png", "tiff": ".tif", "nifti": ".nii.gz", "npz": ".npz", "dicom": ".dcm"}[image.format]


def write_mask(path: Path, labels: np.ndarray, names: dict[int, str], image: InputImage) -> None:
    """Write a label map; the file appears whole or not at all.

    Args:
        path: file to write; ends in ``mask_ending(image)``.
        labels: uint8 or uint16, of the size of ``image.array``.
        names: value -> name of each object, also of empty ones.
        image: the segmented image.

    Raises:
        InputError: the headers of a DICOM series do not suffice for a SEG.
        OSError: the file cannot be written.
    """
    ending = mask_ending(image)
    if ending == ".png":
        _write_bytes(path, lambda file: Image.fromarray(labels).save(file, "PNG"))
    elif ending == ".tif":
        _write_bytes(path, lambda file: _save_stack(file, labels, image.spacing))
    elif ending == ".npz":
        write_segs(path, labels)
    elif ending == ".nii.gz":
        write_nifti(path, image.to_canonical(labels), image.geometry)
    else:
        from custom.images.dicom_seg import write_seg  # slow to import, and rarely needed

        write_seg(path, image.to_canonical(labels), names, image.series)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture, HxW or HxWx3 uint8, whole or not at all."""
    _write_bytes(path, lambda file: Image.fromarray(picture).save(file, "PNG", compress_level=_QUICK))


def _can_be_referred_to(image: InputImage) -> bool:
    series = image.series
    if image.kind == "volume" and series.geometry is None:
        return False
    return len(series.files) in (1, len(series.sop_uids))


def _save_stack(file: BytesIO, labels: np.ndarray, spacing: tuple[float, ...] | None) -> None:
    """Save a stack in the form of ImageJ, which has a place for the spacing."""
    told: dict[str, object] = {"axes": "ZYX"}
    resolution = None
    if spacing is not None:
        z, y, x = spacing
        told |= {"spacing": z, "unit": "mm"}
        resolution = (1 / x, 1 / y)
    options = {"photometric": "minisblack", "compression": "zlib", "resolution": resolution}
    tifffile.imwrite(file, labels, imagej=True, metadata=told, **options)


def _write_bytes(path: Path, save: object) -> None:
    content = BytesIO()
    save(content)
    write_whole(path, lambda file: file.write(content.getvalue()))
