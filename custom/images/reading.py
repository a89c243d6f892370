"""Read an image of any format into the one form that the network takes."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.images.formats import format_of
from custom.images.geometry import Geometry
from custom.images.image import Image
from custom.images.intensity import WINDOWS, Window, parse_window, to_uint8
from custom.modalities import canonical_modality

#: How far the corners of a label map may be from those of its image, in voxels: rounding of a header's quaternion.
GRID_TOLERANCE = 0.1


def read_image(
    path: str | PathLike[str],
    modality: str | None = None,
    window: str | Window = "soft_tissue",
    suv_max: float | None = None,
    frame: int | None = None,
    series: str | int | None = None,
) -> Image:
    """Read an image; its intensities become uint8 as in data preparation.

    Args:
        path: a file of any format of ``custom.images.formats``, or a folder with DICOM files.
        modality: one of the eleven, or a common name of one; None takes that of DICOM or of a file name in the
            challenge's form (``2D_US_7.png``).
        window: for CT that is not uint8: a name of ``WINDOWS``, "level,width" in HU, or a ``Window``.
        suv_max: upper end of the range of a PET in SUV; None uses the percentiles.
        frame: number of the volume in a 4D file, from 0.
        series: the series of a folder or DICOMDIR: its UID, number or description.

    Raises:
        InputError: the file cannot be read or has an unknown format, or its values cannot be scaled.
    """
    declared, shown = _declared(modality), parse_window(window)
    image = format_of(path).read(str(path), frame=frame, series=None if series is None else str(series))
    if declared is not None:
        image = replace(image, modality=declared, modality_source="argument")
    elif image.modality is None:
        named = named_modality(path, strict=image.boxes is not None)
        image = replace(image, modality=named, modality_source=named and "file name")
    return seen(image, shown, suv_max)


def image_of_array(
    array: np.ndarray,
    modality: str | None = None,
    window: str | Window = "soft_tissue",
    suv_max: float | None = None,
) -> Image:
    """Make an image of a NumPy array: HxW, HxWx3 (or x4), DxHxW or DxHxWx3 of any real dtype.

    An array of three axes is a colour picture if its last axis has 3 or 4 entries, else a volume.

    Raises:
        InputError: another shape or dtype.
    """
    array = np.asarray(array)
    if array.ndim not in (2, 3, 4) or not array.size or (array.ndim == 4 and array.shape[3] not in (3, 4)):
        raise InputError("array", "shape", array.shape, "HxW, HxWx3, DxHxW or DxHxWx3")
    volume = array.ndim == 4 or (array.ndim == 3 and array.shape[2] not in (3, 4))
    declared = _declared(modality)
    image = Image(
        path="array",
        format="array",
        array=array if volume else array[None],
        kind="volume" if volume else "picture",
        modality=declared,
        modality_source=declared and "argument",
    )
    return seen(image, parse_window(window), suv_max)


def read_labels(path: str | PathLike[str], image: Image | None = None) -> Image:
    """Read a label map of any format: the array of ids (Z, H, W), with the grid it is stored on.

    If it belongs to an ``image`` and both have a grid, the label map must lie on the image's grid, but its axes may be
    stored in another order; the array is canonical for both.

    Raises:
        InputError: the file cannot be read, holds no ids, or lies on another grid than the image.
    """
    labels = format_of(path).read(str(path), labels=True)
    if image is not None and image.geometry is not None and labels.geometry is not None:
        _check_grid(labels.geometry, image.geometry, path)
    return labels


def seen(image: Image, window: Window = WINDOWS["soft_tissue"], suv_max: float | None = None) -> Image:
    """Convert the values of an image to what the network sees: uint8, a picture without the axis of slices."""
    array = to_uint8(image.array, image.modality or "", window, image.path, suv_max=suv_max)
    if image.kind == "volume":
        return replace(image, array=array)
    spacing = image.spacing if image.spacing is None else image.spacing[-2:]
    return replace(image, array=array[0], spacing=spacing)


def named_modality(path: str | PathLike[str], *, strict: bool = False) -> str | None:
    """Return the modality in a name of the challenge's form, e.g. "CT" of ``3D_CT_liver_01.npz``; else None.

    Raises:
        InputError: ``strict``, and the name has that form with another modality.
    """
    parts = Path(path).name.partition(".")[0].split("_")
    if parts[0] not in ("2D", "3D") or len(parts) < 2:
        return None
    try:
        return canonical_modality(parts[1], str(path))
    except InputError:
        if strict:
            raise
        return None


def _declared(modality: str | None) -> str | None:
    return None if modality is None else canonical_modality(modality, "arguments")


def _check_grid(found: Geometry, allowed: Geometry, path: str | PathLike[str]) -> None:
    stored, wanted = _canonical_grid(found), _canonical_grid(allowed)
    if stored.shape != wanted.shape:
        raise InputError(path, "shape", f"{stored.shape} (x, y, z)", f"{wanted.shape} of {allowed.source}")
    if not stored.same_grid(wanted, GRID_TOLERANCE * min(wanted.spacing)):
        place = f"{_brief(allowed)} of {allowed.source}"
        raise InputError(path, "affine", f"a mismatched affine {_brief(found)}", place)


def _canonical_grid(geometry: Geometry) -> Geometry:
    """Return the grid with the axes (x, y, z) of the canonical array, so that stored axis orders can be compared."""
    return Geometry(geometry.canonical_affine, geometry.canonical_shape[::-1], geometry.source)


def _brief(geometry: Geometry) -> str:
    return str(np.round(geometry.affine[:3], 3).tolist())
