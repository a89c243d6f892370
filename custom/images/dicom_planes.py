"""Where the images of a DICOM series lie, and how they form one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from custom.errors import InputError
from custom.images.decoding import check_size
from custom.images.geometry import Geometry

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_SAME_ORIENTATION = 1e-3  # largest difference of a direction cosine
_SAME_POSITION = 1e-3  # mm
_MISSING_SLICE = 1.5  # in usual gaps: at a wider gap a slice is missing
_EVEN = 0.1  # share of the gap: how far a slice may lie from an even grid
_TILT = 0.01  # lateral shift for each mm along the normal, 0.57 degrees
_FLAT, _CENTIMETRES = 1, 3  # RegionSpatialFormat 2D, PhysicalUnitsXDirection cm: DICOM PS3.3, C.8.5.5
_DRIFT = 0.5  # pixels: how far a slice may lie beside the line through the stack


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """One image: a file, or one frame of a multi-frame file.

    Attributes:
        file: its path.
        frame: number of the frame in the file, from 1.
        sop_uid: SOPInstanceUID of the file.
        size: (rows, columns).
        position: (3,) centre of the first pixel, mm, right-anterior-superior; None if the file has none.
        orientation: (2, 3) unit vectors along a row (column number grows) and along a column; None likewise.
        spacing: (between rows, between columns) in mm, for ultrasound from its calibration; None likewise.
        thickness: distance to the next slice in mm if the file has it, else the slice thickness.
        localizer: the image is a scout.
    """

    file: str
    frame: int
    sop_uid: str
    size: tuple[int, int]
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing: tuple[float, float] | None
    thickness: float | None
    localizer: bool

    @property
    def matrix(self) -> np.ndarray | None:
        """4x3, (column, row, 1) -> position in mm, right-anterior-superior; None if the file has no position."""
        if self.position is None or self.orientation is None or self.spacing is None:
            return None
        rows, columns = self.spacing
        matrix = np.zeros((4, 3))
        matrix[:3] = np.column_stack([self.orientation[0] * columns, self.orientation[1] * rows, self.position])
        matrix[3, 2] = 1
        return matrix


def frame_group(header: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Return a functional group of a frame (from 1): its own, else the shared one, else None."""
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in (own[frame - 1 : frame], shared[:1]):
        found = groups[0].get(keyword) if groups else None
        if found:
            return found[0]
    return None


def planes_of(header: Dataset, path: str) -> list[Plane]:
    """Return the planes of one file, frame by frame.

    Raises:
        InputError: rows, columns, position, orientation or spacing are present but make no sense.
    """
    frames = int(header.get("NumberOfFrames") or 1)
    size = tuple(int(header.get(keyword) or 0) for keyword in ("Rows", "Columns"))
    if min(size) < 1:
        raise InputError(path, "Rows, Columns", size, "an image")
    if frames < 1:
        raise InputError(path, "NumberOfFrames", frames, "at least one")
    check_size((frames, *size), path, itemsize=0)  # the bytes are checked where frames are decoded
    image_type = header.get("ImageType") or []
    return [
        Plane(
            file=path,
            frame=frame,
            sop_uid=str(header.get("SOPInstanceUID", "")),
            size=size,
            position=_position(header, frame, path),
            orientation=_orientation(header, frame, path),
            spacing=_spacing(header, frame, path),
            thickness=_thickness(header, frame),
            localizer="LOCALIZER" in image_type,
        )
        for frame in range(1, frames + 1)
    ]


def stack(planes: Sequence[Plane], source: str) -> tuple[list[Plane], Geometry | None]:
    """Put the planes of a series in order and return the geometry of their volume.

    Slices run along their normal, in the direction that brings them nearest to increasing canonical positions (left,
    posterior or superior), so that axial slices come in the order of the canonical z. The geometry's source axes are
    (column, row, slice). A single plane gets a geometry only if it is axial: any other would be turned away from
    the viewer, so it stays a picture. Planes without a position stay in the order of their frames, without geometry.
    Pixel to patient: DICOM PS3.3, equation C.7.6.2.1-1.

    Raises:
        InputError: the planes do not make one even volume; the error names the file and the problem.
    """
    first = planes[0]
    for plane in planes:
        if plane.size != first.size:
            raise InputError(plane.file, "Rows, Columns", plane.size, f"{first.size} as in {first.file}")
    lost = [plane for plane in planes if plane.matrix is None]
    if lost:
        if len(lost) == len(planes) and all(plane.file == first.file for plane in planes):
            return list(planes), None
        allowed = "images with ImagePositionPatient, ImageOrientationPatient and PixelSpacing, or one image"
        raise InputError(lost[0].file, "ImagePositionPatient", f"no place for {len(lost)} of {len(planes)}", allowed)
    _check_alike(planes)
    normal = _normal(first)
    along = np.array([(plane.position - first.position) @ normal for plane in planes])
    order = np.argsort(along, kind="stable")
    ordered, along = [planes[n] for n in order], along[order]
    if len(planes) > 1:
        _check_gaps(ordered, along)
        step = (ordered[-1].position - ordered[0].position) / (len(planes) - 1)
        _check_line(ordered, step, normal)
    else:
        step = normal * (first.thickness or 1.0)
    affine = np.eye(4)
    affine[:, :2] = first.matrix[:, :2]
    affine[:3, 2], affine[:3, 3] = step, ordered[0].position
    geometry = Geometry(affine, (*first.size[::-1], len(planes)), source)
    # Turning a picture that is not axial would make its slice axis one of the picture's two.
    is_volume = len(planes) > 1 or np.abs(normal).argmax() == 2
    return ordered, geometry if is_volume else None


def _check_alike(planes: Sequence[Plane]) -> None:
    scouts = [plane for plane in planes if plane.localizer]
    if scouts and len(scouts) < len(planes):
        found = f"LOCALIZER in {len(scouts)} of {len(planes)} images"
        raise InputError(scouts[0].file, "ImageType", found, "a series without its localizers")
    first = planes[0]
    for plane in planes:
        if np.abs(plane.orientation - first.orientation).max() > _SAME_ORIENTATION:
            found = plane.orientation.round(4).tolist()
            raise InputError(plane.file, "ImageOrientationPatient", found, f"the orientation of {first.file}")
        if not np.allclose(plane.spacing, first.spacing, rtol=1e-3):
            raise InputError(plane.file, "PixelSpacing", plane.spacing, f"{first.spacing} as in {first.file}")


def _normal(plane: Plane) -> np.ndarray:
    normal = np.cross(*plane.orientation)
    axis = np.abs(normal).argmax()
    return normal * np.sign(normal[axis] * _LPS_TO_RAS[axis])  # towards left, posterior or superior


def _check_gaps(planes: Sequence[Plane], along: np.ndarray) -> None:
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    same = np.flatnonzero(gaps <= _SAME_POSITION)
    if len(same):
        one, other = (_where(planes[same[0] + n]) for n in (0, 1))
        allowed = "one image at each position (time points, echoes or b-values in series of their own)"
        raise InputError(one, "ImagePositionPatient", f"the position of {other}", allowed)
    wide = np.flatnonzero(gaps > _MISSING_SLICE * usual)
    if len(wide):
        place = wide[0]
        position = (planes[place].position * _LPS_TO_RAS).round(3).tolist()
        found = f"a gap of {gaps[place]:.4g} mm after slice {place + 1} of {len(planes)} (at {position})"
        allowed = f"no missing slice: gaps of {usual:.4g} mm"
        raise InputError(_where(planes[place]), "ImagePositionPatient", found, allowed)
    off = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    if off.max() > _EVEN * usual:
        worst = int(off.argmax())
        found = f"slice {worst + 1} of {len(planes)} {off[worst]:.4g} mm off an even grid"
        raise InputError(_where(planes[worst]), "ImagePositionPatient", found, f"even gaps (here about {usual:.4g} mm)")


def _check_line(planes: Sequence[Plane], step: np.ndarray, normal: np.ndarray) -> None:
    forward = step @ normal
    tilt = float(np.linalg.norm(step - forward * normal) / abs(forward))
    if tilt > _TILT:
        found = f"slices shifted by {np.degrees(np.arctan(tilt)):.3g} degrees against their normal (gantry tilt)"
        raise InputError(planes[0].file, "ImagePositionPatient", found, "slices stacked along their normal")
    for number, plane in enumerate(planes):
        off = plane.position - planes[0].position - number * step
        beside = float(np.linalg.norm(off - (off @ normal) * normal))
        if beside > _DRIFT * min(plane.spacing):
            found = f"slice {number + 1} of {len(planes)} lies {beside:.4g} mm beside the stack"
            raise InputError(_where(plane), "ImagePositionPatient", found, "slices stacked along their normal")


def _where(plane: Plane) -> str:
    return plane.file if plane.frame == 1 else f"{plane.file} frame {plane.frame}"


def _position(header: Dataset, frame: int, path: str) -> np.ndarray | None:
    group = frame_group(header, frame, "PlanePositionSequence")
    values = _numbers(header if group is None else group, "ImagePositionPatient", 3, path)
    if group is None and int(header.get("NumberOfFrames") or 1) > 1:
        return None  # one position for all frames makes no stack
    return None if values is None else values * _LPS_TO_RAS


def _orientation(header: Dataset, frame: int, path: str) -> np.ndarray | None:
    group = frame_group(header, frame, "PlaneOrientationSequence")
    values = _numbers(header if group is None else group, "ImageOrientationPatient", 6, path)
    if values is None:
        return None
    vectors = values.reshape(2, 3)
    lengths = np.linalg.norm(vectors, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(vectors[0] @ vectors[1]) > 0.01:
        raise InputError(path, "ImageOrientationPatient", values.tolist(), "two perpendicular unit vectors")
    return vectors / lengths[:, None] * _LPS_TO_RAS


def _spacing(header: Dataset, frame: int, path: str) -> tuple[float, float] | None:
    group = frame_group(header, frame, "PixelMeasuresSequence")
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        values = _numbers(header if group is None else group, keyword, 2, path)
        if values is not None and values.min() > 0:  # film scanners write 0
            return float(values[0]), float(values[1])
    return _calibration(header)


def _calibration(header: Dataset) -> tuple[float, float] | None:
    """Return the spacing of ultrasound if all of its 2D regions have the same."""
    regions = header.get("SequenceOfUltrasoundRegions") or []
    found = [_region_spacing(region) for region in regions if region.get("RegionSpatialFormat") == _FLAT]
    if not found or None in found or not np.allclose(found, found[0], rtol=1e-3):
        return None
    return found[0]


def _region_spacing(region: Dataset) -> tuple[float, float] | None:
    """Return the spacing (y, x) of a region in mm; a delta is negative where positions decrease."""
    units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "YX"]
    y, x = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX")
    return (y, x) if units == [_CENTIMETRES] * 2 and 0 < y < np.inf and 0 < x < np.inf else None


def _thickness(header: Dataset, frame: int) -> float | None:
    group = frame_group(header, frame, "PixelMeasuresSequence")
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = (header if group is None else group).get(keyword)
        if value and float(value) > 0:
            return float(value)
    return None


def _numbers(dataset: Dataset, keyword: str, count: int, path: str) -> np.ndarray | None:
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(path, keyword, numbers.tolist(), f"{count} numbers")
    return numbers
