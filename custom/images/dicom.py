"""Read DICOM series: pictures, stacks of files and multi-frame files, as one array with its place in the patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from custom.errors import InputError
from custom.images.decoding import check_size, decoding
from custom.images.dicom_files import NO_IMAGES, list_series, read_header, text_of
from custom.images.dicom_pixels import pixel_bytes, read_frames
from custom.images.dicom_planes import Plane, planes_of, stack
from custom.images.geometry import Geometry
from custom.images.suv import suv_factor

#: DICOM's Modality -> ours. XC (photographs) counts as dermoscopy only where the body part is skin.
DICOM_MODALITIES: dict[str, str] = {
    "CT": "CT",
    "MR": "MR",
    "PT": "PET",
    "US": "US",
    "IVUS": "US",
    "CR": "X-Ray",
    "DX": "X-Ray",
    "RG": "X-Ray",
    "IO": "X-Ray",
    "PX": "X-Ray",
    "RF": "X-Ray",
    "XA": "X-Ray",
    "MG": "Mammography",
    "OPT": "OCT",
    "OCT": "OCT",
    "IVOCT": "OCT",
    "ES": "Endoscopy",
    "OP": "Fundus",
    "DMS": "Dermoscopy",
    "SM": "Microscopy",
    "GM": "Microscopy",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomSeries:
    """One series.

    Slices are in the order of canonical z where they are axial (see ``dicom_planes.stack``); the per-slice attributes
    follow that order, also where the stack is sagittal or coronal and ``array`` is turned.

    Attributes:
        array: canonical, (Z, H, W) or (Z, H, W, 3); rescaled values, see ``unit``. Without a geometry: the pictures
            as they are stored, Z = number of frames (a cine loop is a stack of its frames).
        geometry: the grid with source axes (column, row, slice); None for pictures and cine loops.
        spacing: (z, y, x) of ``array`` in mm; of a picture the y and x as the tags tell and z the slice thickness or
            1; None where it is not known, and for cine loops.
        modality: one of ours; None where DICOM's has no counterpart.
        kind: DICOM's Modality.
        unit: of the values: ``"HU"``, ``"SUV"`` (body weight), ``"Bq/ml"`` (PET whose tags do not suffice for SUV),
            another code of Units or RescaleType, or None.
        patient: PatientID, may be empty.
        description: SeriesDescription, may be empty.
        uid: SeriesInstanceUID.
        frame_of_reference: FrameOfReferenceUID, may be empty.
        sop_uids: SOPInstanceUID of each slice; the same for every frame of a multi-frame file.
        frames: frame number of each slice in its file, from 1.
        files: each file once, in the order of its first slice.
    """

    array: np.ndarray
    geometry: Geometry | None
    spacing: tuple[float, float, float] | None
    modality: str | None
    kind: str
    unit: str | None
    patient: str
    description: str
    uid: str
    frame_of_reference: str
    sop_uids: tuple[str, ...]
    frames: tuple[int, ...]
    files: tuple[str, ...]

    def to_canonical(self, slices: np.ndarray) -> np.ndarray:
        """Turn stored slices (slice, row, column) to the canonical (Z, H, W)."""
        if self.geometry is None:
            return slices
        return self.geometry.canonical(slices.transpose(2, 1, 0))  # KxRxC -> CxRxK -> ZxHxW

    def to_slices(self, array: np.ndarray) -> np.ndarray:
        """Turn a canonical array (Z, H, W) back to the stored slices (slice, row, column)."""
        if self.geometry is None:
            return array
        return self.geometry.restore(array).transpose(2, 1, 0)  # ZxHxW -> CxRxK -> KxRxC

    @property
    def slices_shape(self) -> tuple[int, int, int]:
        """(slice, row, column) as stored."""
        if self.geometry is None:
            return self.array.shape[:3]
        columns, rows, slices = self.geometry.shape
        return slices, rows, columns


def read_series(source: str | Path | Iterable[str | Path]) -> DicomSeries:
    """Read one series.

    Args:
        source: a folder that holds one image series (label objects beside it do not matter), one file, or the files.

    Raises:
        InputError: there is not exactly one image series; a file cannot be read; or the images do not make one even
            volume (missing or duplicated slice, other size or orientation, gantry tilt, localizers among them).
    """
    paths, name = _paths(source)
    with decoding(paths[0], "DICOM series"):  # pydicom finds malformed values when they are asked for
        return _read(paths, name)


def _read(paths: list[str], name: str) -> DicomSeries:
    headers, planes = {}, []
    for path in paths:
        headers[path] = read_header(path)
        if headers[path] is None or text_of(headers[path], "Modality") in NO_IMAGES:
            raise InputError(path, "file", "no DICOM image", "images of one series")
        with decoding(path, "DICOM file"):
            planes += planes_of(headers[path], path)
    first = headers[paths[0]]
    for path, header in headers.items():
        if header.SeriesInstanceUID != first.SeriesInstanceUID:
            raise InputError(path, "SeriesInstanceUID", header.SeriesInstanceUID, f"one series, as in {paths[0]}")
    planes, geometry = stack(planes, name)
    check_size((len(planes), *planes[0].size), name, itemsize=pixel_bytes(first))
    slices = _read_slices(planes)  # KxRxC[x3]
    unit = _unit(first)
    if unit == "Bq/ml" and (factor := suv_factor(list(headers.values()))) is not None:
        slices, unit = (slices * factor).astype(np.float32), "SUV"
    if geometry is None:
        array, spacing = slices, _picture_spacing(planes)
    else:
        channels = slices[..., None] if slices.ndim == 3 else slices
        turned = [geometry.canonical(channels[..., c].transpose(2, 1, 0)) for c in range(channels.shape[-1])]
        array, spacing = (turned[0] if slices.ndim == 3 else np.stack(turned, axis=-1)), geometry.spacing
    return DicomSeries(
        array=array,
        geometry=geometry,
        spacing=spacing,
        modality=_modality(first),
        kind=text_of(first, "Modality"),
        unit=unit,
        patient=text_of(first, "PatientID"),
        description=text_of(first, "SeriesDescription"),
        uid=text_of(first, "SeriesInstanceUID"),
        frame_of_reference=text_of(first, "FrameOfReferenceUID"),
        sop_uids=tuple(plane.sop_uid for plane in planes),
        frames=tuple(plane.frame for plane in planes),
        files=tuple(dict.fromkeys(plane.file for plane in planes)),
    )


def _paths(source: str | Path | Iterable[str | Path]) -> tuple[list[str], str]:
    """Return the files and the name to use in errors about them all."""
    if isinstance(source, (str, Path)) and not Path(source).is_dir():
        return [str(source)], str(source)
    if not isinstance(source, (str, Path)):
        paths = [str(path) for path in source]
        if not paths:
            raise InputError("files", "series", "no file", "the files of one image series")
        return paths, paths[0]
    images = [series for series in list_series(source).series if series.image]
    if len(images) != 1:
        found = "; ".join(f"{s.uid} ({s.kind}, {len(s.files)} files)" for s in images) or "none"
        raise InputError(source, "series", found, "one image series; give its files where there are several")
    return list(images[0].files), str(source)


def _read_slices(planes: list[Plane]) -> np.ndarray:
    """Return the stored slices in the order of the planes: KxRxC, or KxRxCx3."""
    frames = {path: read_frames(path) for path in dict.fromkeys(plane.file for plane in planes)}
    slices = [frames[plane.file][plane.frame - 1] for plane in planes]
    for plane, image in zip(planes, slices, strict=True):
        if image.shape != slices[0].shape:
            raise InputError(plane.file, "pixels", f"shape {image.shape}", f"{slices[0].shape} as in {planes[0].file}")
    return np.stack(slices)


def _picture_spacing(planes: list[Plane]) -> tuple[float, float, float] | None:
    plane = planes[0]
    return (plane.thickness or 1.0, *plane.spacing) if len(planes) == 1 and plane.spacing is not None else None


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
