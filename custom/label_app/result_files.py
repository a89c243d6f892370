"""Write a label map as the file a client asks for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from PIL import Image

from custom.errors import InputError
from custom.images.geometry import Geometry
from custom.images.nifti import write_nifti
from custom.inference.mask_files import mask_ending, write_mask
from custom.inference.sources import InputImage
from custom.label_app.grid import affine_of

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".png", ".tif")


def requested_ending(request: Mapping[str, Any]) -> str | None:
    """Return the ending a client asks for; None where it leaves it to the server.

    Raises:
        InputError: it is none of ``ENDINGS``; as it stands it would become part of a path.
    """
    ending = request.get("result_extension") or None
    if ending not in (None, *ENDINGS):
        raise InputError("request", "result_extension", repr(ending), ", ".join(ENDINGS))
    return ending


def write_result(labels: np.ndarray, image: InputImage, request: Mapping[str, Any]) -> Path:
    """Write a label map to a new file in the folder for temporary files.

    Args:
        labels: IxJxK in the axes of the image file.
        image: the image they belong to.
        request: ``result_extension``, one of ``ENDINGS``: .nrrd for 3D Slicer and OHIF; by default that of the image's
            kind: .png for a picture, .tif for a TIFF stack, .nii.gz for NIfTI. ``result_compress``: compress .nrrd.

    Raises:
        InputError: another ending, or one that cannot hold the result.
    """
    ending = requested_ending(request) or mask_ending(image)
    flat = image.geometry is None and labels.shape[2] == 1
    if (ending == ".png" and not flat) or (ending == ".tif" and image.format != "tiff"):
        raise InputError("request", "result_extension", repr(ending), f"{mask_ending(image)}, .nrrd for this image")
    with tempfile.NamedTemporaryFile(suffix=ending, delete=False) as file:
        path = Path(file.name)
    try:
        if ending == ".nrrd":
            _write_nrrd(path, labels, affine_of(image), compress=bool(request.get("result_compress")))
        elif ending == ".png":
            Image.fromarray(np.ascontiguousarray(labels[:, :, 0].T)).save(path)
        elif ending == ".tif":
            write_mask(path, np.ascontiguousarray(labels.T), {}, image)  # IxJxK -> KxJxI
        else:
            geometry = image.geometry or Geometry(affine_of(image), labels.shape, image.path)
            write_nifti(path, geometry.canonical(labels), geometry)
    except BaseException:
        path.unlink(missing_ok=True)  # nobody would know its name
        raise
    return path


def _write_nrrd(path: Path, labels: np.ndarray, affine: np.ndarray, *, compress: bool) -> None:
    placed = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # right-anterior-superior -> left-posterior-superior
    header = {
        "space": "left-posterior-superior",
        "space directions": placed[:3, :3].T,  # one row for each axis
        "space origin": placed[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "gzip" if compress else "raw",
    }
    nrrd.write(str(path), labels, header)
