"""Read an image of any kind into the one form that is segmented, and turn boxes and labels to it and back."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from custom.errors import InputError
from custom.images.boxes import check_boxes
from custom.images.geometry import Geometry
from custom.images.intensity import WINDOWS, Window, to_uint8
from custom.images.nifti import NIFTI_ENDINGS, is_nifti, read_nifti
from custom.images.pictures import PICTURE_ENDINGS, is_picture, picture_spacing, read_picture
from custom.inference.npz import challenge_modality, read_npz

if TYPE_CHECKING:
    from custom.images.dicom import DicomSeries

NPZ_ENDING = ".npz"
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
ENDINGS = (*NIFTI_ENDINGS, *PICTURE_ENDINGS, NPZ_ENDING, *DICOM_ENDINGS)
KINDS = "a PNG, JPEG, TIFF, BMP, NIfTI, npz or DICOM file, or a folder with one DICOM series"


@dataclass(frozen=True, kw_only=True, eq=False)
class InputImage:
    """An image as the network sees it, and where it came from.

    Attributes:
        path: file or folder.
        format: "picture", "tiff" (a stack), "nifti", "dicom" or "npz".
        array: uint8 HxW or HxWx3; of a volume DxHxW or DxHxWx3, canonical where there is a geometry.
        kind: "picture" or "volume". A NIfTI or DICOM image of one slice is a picture.
        geometry: grid of the source, or None.
        spacing: mm along the axes of ``array``, (y, x) or (z, y, x); None where the source does not tell.
        modality: what is declared or known, or None.
        modality_source: who told: "argument", "DICOM", "file name", or None.
        series: the series of a DICOM image.
        boxes: the file's own boxes (npz), not checked; None where it has none.
    """

    path: str
    format: str
    array: np.ndarray
    kind: str
    geometry: Geometry | None = None
    spacing: tuple[float, ...] | None = None
    modality: str | None = None
    modality_source: str | None = None
    series: DicomSeries | None = None
    boxes: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Number of pixels along x, y (and z) of the source: the axes of its boxes, whatever their order in space."""
        if self.geometry is None:
            return self.array.shape[1::-1] if self.kind == "picture" else self.array.shape[2::-1]
        return tuple(n for axis, n in enumerate(self.geometry.shape) if axis != self._source_axis)

    @property
    def source_spacing(self) -> tuple[float, ...] | None:
        """Spacing in mm in the order of ``size``."""
        if self.geometry is None:
            return None if self.spacing is None else self.spacing[::-1]
        steps = np.linalg.norm(self.geometry.affine[:3, :3], axis=0)
        return tuple(round(float(step), 6) for axis, step in enumerate(steps) if axis != self._source_axis)

    def checked_boxes(self, boxes: object) -> np.ndarray:
        """Check boxes in the pixels of the source: Nx4, or Nx6 for a volume, where they may be one slice deep.

        A picture cut out of space (a NIfTI or DICOM image of one slice) also takes 6 numbers, 0 along the third axis.

        Raises:
            InputError: see ``check_boxes``.
        """
        if self._source_axis is not None:
            boxes = _without_axis(boxes, self._source_axis)
        return check_boxes(boxes, self.size[::-1], self.path, slice_axis=self._slice_axis)

    def boxes_to_array(self, boxes: np.ndarray) -> np.ndarray:
        """Turn checked boxes to the pixels of ``array``."""
        if self.geometry is None:
            return boxes
        if self._source_axis is None:
            return self.geometry.canonical_boxes(boxes)
        low, high = (np.insert(boxes[:, ends], self._source_axis, 0, axis=1) for ends in (slice(0, 2), slice(2, 4)))
        return np.delete(self.geometry.canonical_boxes(np.concatenate([low, high], axis=1)), [2, 5], axis=1)

    def to_canonical(self, labels: np.ndarray) -> np.ndarray:
        """Turn a label map of the size of ``array`` to the canonical one, ZxHxW."""
        return labels if self.kind == "volume" else labels[None]

    def slice_name(self, z: int) -> str:
        """Name a slice of ``array`` by the axis and the number it has in the source, e.g. "z 12"."""
        number = z if self.geometry is None else round(float((self._to_source @ [0, 0, z, 1])[self._slice_axis]))
        return f"{'xyz'[self._slice_axis]} {number}"

    @cached_property
    def _to_source(self) -> np.ndarray:
        """4x4, voxel (x, y, z, 1) of the canonical array -> voxel of the source."""
        return np.linalg.solve(self.geometry.affine, self.geometry.canonical_affine)

    @property
    def _slice_axis(self) -> int:
        """The source axis that runs through the slices."""
        return 2 if self.geometry is None else int(np.abs(self._to_source[:3, 2]).argmax())

    @cached_property
    def _source_axis(self) -> int | None:
        """The source axis of a single slice; None where there is no grid or it is a volume's."""
        if self.geometry is None or self.kind == "volume":
            return None
        return max(axis for axis, n in enumerate(self.geometry.shape) if n == 1)


def read_input(
    path: str | Path,
    *,
    modality: str | None = None,
    window: Window = WINDOWS["soft_tissue"],
    suv_max: float | None = None,
) -> InputImage:
    """Read an image; its intensities become uint8 as data preparation makes them.

    Args:
        path: picture, TIFF stack, NIfTI, CVPR24 npz, DICOM file, or folder with one DICOM series.
        modality: one of the eleven; None takes DICOM's Modality or the one of a name in the challenge's form.
        window: window of CT that is not uint8 yet.
        suv_max: upper end of the range of a PET in SUV; None takes the percentiles.

    Raises:
        InputError: the file cannot be read or is none of these, or its values cannot be shown.
    """
    image = _read(str(path))
    if modality is not None:
        image = replace(image, modality=modality, modality_source="argument")
    elif image.modality is None:
        told = _named_modality(path, strict=image.format == "npz")
        image = replace(image, modality=told, modality_source=told and "file name")
    return _as_seen(image, window, suv_max)


def stem(path: str | Path) -> str:
    """Return a file's or folder's name without the ending of its format.

    Example:
        >>> stem("in/a.b.nii.gz"), stem("in/1.2.840.1")
        ('a.b', '1.2.840.1')
    """
    name = Path(path).name or Path(path).resolve().name
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] or name


def _read(path: str) -> InputImage:
    """Read the values as stored: a picture as 1xHxW[x3], a volume as DxHxW[x3]."""
    if not os.path.exists(path):  # False, too, for what can be no path
        raise InputError(path, "image", "no such file", KINDS)
    if os.path.isdir(path):
        return _read_dicom(path)
    if is_nifti(path):
        array, geometry = read_nifti(path)
        kind = "picture" if 1 in geometry.shape else "volume"
        return InputImage(
            path=path, format="nifti", array=array, kind=kind, geometry=geometry, spacing=geometry.spacing
        )
    if is_picture(path):
        array = read_picture(path)
        if len(array) == 1:
            return InputImage(path=path, format="picture", array=array, kind="picture")
        return InputImage(path=path, format="tiff", array=array, kind="volume", spacing=picture_spacing(path))
    if path.lower().endswith(NPZ_ENDING):
        case = read_npz(path)
        array, kind = (case.imgs, "volume") if case.volume else (case.imgs[None], "picture")
        return InputImage(path=path, format="npz", array=array, kind=kind, spacing=case.spacing, boxes=case.boxes)
    return _read_dicom(path)


def _read_dicom(path: str) -> InputImage:
    from custom.images.dicom import read_series  # where pydicom is older than 3, other files can still be read
    from custom.images.dicom_files import read_header

    if not Path(path).is_dir() and read_header(path) is None:
        raise InputError(path, "image", "a file of another kind", KINDS)
    series = read_series(path)
    single = len(series.array) == 1 if series.geometry is None else 1 in series.geometry.shape
    return InputImage(
        path=path,
        format="dicom",
        array=series.array,
        kind="picture" if single else "volume",
        geometry=series.geometry,
        spacing=series.spacing,
        modality=series.modality,
        modality_source=series.modality and "DICOM",
        series=series,
    )


def _named_modality(path: str | Path, *, strict: bool) -> str | None:
    """Return the modality of a name in the challenge's form, which of other files is only taken where it is one."""
    try:
        return challenge_modality(path)
    except InputError:
        if strict:
            raise
        return None


def _as_seen(image: InputImage, window: Window, suv_max: float | None) -> InputImage:
    """Turn the values to uint8, and a picture to its one slice."""
    array = to_uint8(image.array, image.modality or "", window, image.path, suv_max=suv_max)
    if image.kind == "volume":
        return replace(image, array=array)
    return replace(image, array=array[0], spacing=None if image.spacing is None else image.spacing[1:])


def _without_axis(boxes: object, axis: int) -> object:
    """Drop the third axis of boxes with 6 numbers, where it is 0; anything else is for ``check_boxes``."""
    try:
        array = np.atleast_2d(np.asarray(boxes, np.float64))
    except (TypeError, ValueError, OverflowError):
        return boxes
    if array.ndim == 2 and array.shape[1] == 6 and not array[:, [axis, axis + 3]].any():
        return np.delete(array, [axis, axis + 3], axis=1)
    return boxes
