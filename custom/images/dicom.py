"""Read DICOM series: pictures, stacks of files and multi-frame files, as one array with its place in the patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from custom.errors import InputError
from custom.images.decoding import check_size, decoding
from custom.images.dicom_files import SeriesFacts, drop_pixels, facts_of, list_series, load_series, number_of, text_of
from custom.images.dicom_pixels import decode_frames, pixel_bytes
from custom.images.dicom_planes import Plane, planes_of, stack
from custom.images.geometry import Geometry
from custom.images.suv import suv_factor

__all__ = ["DICOM_MODALITIES", "DicomSeries", "list_series", "read_series"]

#: DICOM's Modality -> ours. XC (photographs) counts as dermoscopy only if the body part is skin.
DICOM_MODALITIES: dict[str, str] = {
    **{"CT": "CT", "MR": "MR", "PT": "PET", "MG": "Mammography", "ES": "Endoscopy", "OP": "Fundus"},
    **dict.fromkeys(("CR", "DX", "RG", "IO", "PX", "RF", "XA"), "X-Ray"),
    **dict.fromkeys(("OPT", "OCT", "IVOCT"), "OCT"),
    **dict.fromkeys(("US", "IVUS"), "US"),
    **dict.fromkeys(("SM", "GM"), "Microscopy"),
    "DMS": "Dermoscopy",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomSeries(SeriesFacts):
    """One series.

    Slices are in the order of canonical z if they are axial (see ``dicom_planes.stack``). The attributes by slice
    follow that order, also if the stack is sagittal or coronal and ``array`` is turned.

    Attributes:
        array: canonical, (Z, H, W) or (Z, H, W, 3); rescaled values, see ``unit``. Without a geometry: the pictures
            as they are stored, Z = number of frames (a cine loop is a stack of its frames).
        geometry: the grid with source axes (column, row, slice); None for pictures and cine loops.
        spacing: (z, y, x) of ``array`` in mm; for a picture y and x from the tags, z the slice thickness or 1; None
            if unknown, and for cine loops.
        modality: one of the eleven; None if DICOM's Modality has no counterpart.
        unit: unit of the values: ``"HU"``, ``"SUV"`` (body weight), ``"Bq/ml"`` (PET without the tags for SUV),
            another code of Units or RescaleType, or None.
        sop_uids: SOPInstanceUID of each slice; the same for every frame of a multi-frame file.
        instance_numbers: InstanceNumber of each slice, None if missing; repeated likewise.
        frames: frame number of each slice in its file, from 1.
        files: each file once, in the order of its first slice.
        headers: the header of each of ``files``, without pixels; make a copy before changing one.
        unreadable: a line for each other file of the folder that cannot be read; it may belong to the series.
    """

    array: np.ndarray
    geometry: Geometry | None
    spacing: tuple[float, float, float] | None
    modality: str | None
    unit: str | None
    sop_uids: tuple[str, ...]
    instance_numbers: tuple[int | None, ...]
    frames: tuple[int, ...]
    files: tuple[str, ...]
    headers: tuple[Dataset, ...]
    unreadable: tuple[str, ...]

    def to_canonical(self, slices: np.ndarray) -> np.ndarray:
        """Turn stored slices (slice, row, column) to the canonical (Z, H, W)."""
        return slices if self.geometry is None else self.geometry.canonical(slices.T)  # KxRxC -> CxRxK -> ZxHxW

    def to_slices(self, array: np.ndarray) -> np.ndarray:
        """Turn a canonical array (Z, H, W) back to the stored slices (slice, row, column)."""
        return array if self.geometry is None else self.geometry.restore(array).T  # ZxHxW -> CxRxK -> KxRxC

    @property
    def slices_shape(self) -> tuple[int, int, int]:
        """Shape (slice, row, column) as stored."""
        if self.geometry is None:
            return self.array.shape[:3]
        columns, rows, slices = self.geometry.shape
        return slices, rows, columns


def read_series(source: str | Path | Iterable[str | Path], series: str | None = None) -> DicomSeries:
    """Read one series; each of its files is opened once.

    Args:
        source: a folder or DICOMDIR (label objects beside the images do not matter), one file, or the files.
        series: the UID, number or description of the series to read if a folder or DICOMDIR holds several.

    Raises:
        InputError: there is not exactly one image series; a file cannot be read; or the images do not make one even
            volume (a missing or duplicated slice, another size or orientation, gantry tilt, localizers).
    """
    datasets, unreadable = load_series(source, series)
    name = str(source) if isinstance(source, (str, Path)) else next(iter(datasets))
    with decoding(next(iter(datasets)), "DICOM series"):  # pydicom checks values when they are accessed
        return _read(datasets, name, unreadable)


def _read(datasets: dict[str, Dataset], name: str, unreadable: tuple[str, ...]) -> DicomSeries:
    planes, (first_path, first) = [], next(iter(datasets.items()))
    for path, header in datasets.items():
        with decoding(path, "DICOM file"):
            planes += planes_of(header, path)
        if header.SeriesInstanceUID != first.SeriesInstanceUID:
            raise InputError(path, "SeriesInstanceUID", header.SeriesInstanceUID, f"one series, as in {first_path}")
    planes, geometry = stack(planes, name)
    check_size((len(planes), *planes[0].size), name, itemsize=pixel_bytes(first))
    slices = _decode_slices(planes, datasets)  # KxRxC[x3]
    unit = _unit(first)
    if unit == "Bq/ml" and (factor := suv_factor(list(datasets.values()))) is not None:
        slices, unit = (slices * factor).astype(np.float32), "SUV"
    if geometry is not None:
        array, spacing = geometry.canonical(slices.swapaxes(0, 2)), geometry.spacing  # KxRxC -> CxRxK
    elif len(planes) == 1 and planes[0].spacing is not None:
        array, spacing = slices, (planes[0].thickness or 1.0, *planes[0].spacing)
    else:
        array, spacing = slices, None
    files = tuple(dict.fromkeys(plane.file for plane in planes))
    return DicomSeries(
        **facts_of(first),
        array=array,
        geometry=geometry,
        spacing=spacing,
        modality=_modality(first),
        unit=unit,
        sop_uids=tuple(plane.sop_uid for plane in planes),
        instance_numbers=tuple(number_of(datasets[plane.file], "InstanceNumber") for plane in planes),
        frames=tuple(plane.frame for plane in planes),
        files=files,
        headers=tuple(datasets[file] for file in files),
        unreadable=unreadable,
    )


def _decode_slices(planes: list[Plane], datasets: dict[str, Dataset]) -> np.ndarray:
    """Return the stored slices in the order of the planes: KxRxC, or KxRxCx3. Removes the pixels of the data sets."""
    frames = {}
    for path in datasets:
        frames[path] = decode_frames(datasets[path], path)
        drop_pixels(datasets[path])  # one file at a time, so that only one is in memory twice
    slices = [frames[plane.file][plane.frame - 1] for plane in planes]
    for plane, image in zip(planes, slices, strict=True):
        if image.shape != slices[0].shape:
            raise InputError(plane.file, "pixels", f"shape {image.shape}", f"{slices[0].shape} as in {planes[0].file}")
    return np.stack(slices)


def _modality(header: Dataset) -> str | None:
    kind = text_of(header, "Modality")
    if kind == "XC" and text_of(header, "BodyPartExamined").upper() == "SKIN":
        return "Dermoscopy"
    return DICOM_MODALITIES.get(kind)


def _unit(header: Dataset) -> str | None:
    kind, units = text_of(header, "Modality"), text_of(header, "Units")
    if kind == "PT":
        by_weight = text_of(header, "SUVType") in ("", "BW")
        return {"BQML": "Bq/ml", "GML": "SUV" if by_weight else f"SUV {header.SUVType}"}.get(units, units or None)
    if kind == "CT":
        return text_of(header, "RescaleType") or "HU"
    return None
