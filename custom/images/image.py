"""One image: its array, its place in space, and what its format needs to write a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.boxes import check_boxes
from custom.images.geometry import Geometry

#: The place of an image without a grid, for a format that needs one: pixel (x, y) of slice z at (x, y, z) spacings,
#: left-posterior-superior, as ITK places a picture.
_NOWHERE = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """An image and where it came from.

    Positions are those of the source as stored: x runs along a row, y along a column, z through the slices; in NIfTI
    and other formats with a grid they are the indices i, j, k.

    Attributes:
        path: file or folder; "array" for a NumPy array.
        format: name of the format's module in ``custom.images.formats``; "array" for a NumPy array.
        array: as a format reads it, (Z, H, W) or (Z, H, W, C) of any real dtype, Z = 1 for a picture; after ``seen``
            as the network sees it, uint8 HxW or HxWx3, of a volume DxHxW or DxHxWx3. Canonical where there is a grid.
        kind: "picture" or "volume". An image of one slice is a picture, whatever its format.
        geometry: the grid of the source, or None.
        spacing: mm along the axes of ``array``, (y, x) or (z, y, x); None if unknown.
        modality: one of the eleven, or None.
        modality_source: where it is from: "argument", "DICOM", "file name", or None.
        boxes: the file's own boxes (npz), not checked; None if it has none.
        stored_shape: shape of the source's own array; None if it follows from ``size``.
        ijk: whether that array is indexed i, j, k (NIfTI) instead of z, y, x.
        source: what the format needs to write a mask: a header, a DICOM series.
        notes: further facts about the source for the report, JSON values.
    """

    path: str
    format: str
    array: np.ndarray
    kind: str
    geometry: Geometry | None = None
    spacing: tuple[float, ...] | None = None
    modality: str | None = None
    modality_source: str | None = None
    boxes: np.ndarray | None = None
    stored_shape: tuple[int, ...] | None = None
    ijk: bool = False
    source: Any = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, ...]:
        """Number of pixels along x, y (and z) of the source: the axes of its boxes, whatever their order in space."""
        if self.geometry is None:
            return self.array.shape[1::-1] if self.kind == "picture" else self.array.shape[2::-1]
        return tuple(n for axis, n in enumerate(self.geometry.shape) if axis != self.flat_axis)

    @property
    def source_spacing(self) -> tuple[float, ...] | None:
        """Spacing in mm along the axes of ``size``."""
        if self.geometry is None:
            return None if self.spacing is None else self.spacing[::-1]
        steps = np.linalg.norm(self.geometry.affine[:3, :3], axis=0)
        return tuple(round(float(step), 6) for axis, step in enumerate(steps) if axis != self.flat_axis)

    @cached_property
    def flat_axis(self) -> int | None:
        """The source axis of a single slice; None without a grid, or for a volume."""
        if self.geometry is None or self.kind == "volume":
            return None
        return max(axis for axis, n in enumerate(self.geometry.shape) if n == 1)

    @property
    def grid(self) -> Geometry:
        """The grid of the source; without one, the grid on which ITK places pictures."""
        if self.geometry is not None:
            return self.geometry
        width, height, *depth = self.size
        steps = np.array([*(self.source_spacing or (1.0,) * len(self.size)), 1.0, 1.0])[:3]
        return Geometry(_NOWHERE * [*steps, 1.0], (width, height, *(depth or [1])), self.path)

    def checked_boxes(self, boxes: object) -> np.ndarray:
        """Check boxes in the pixels of the source: Nx4, or Nx6 for a volume, where they may be one slice deep.

        A picture cut out of space (a NIfTI or DICOM image of one slice) also takes 6 numbers, 0 along the third axis.

        Raises:
            InputError: see ``check_boxes``.
        """
        axes = {"slice_axis": self._slice_axis, "flat_axis": self.flat_axis}
        return check_boxes(boxes, self.size[::-1], self.path, **axes)

    def boxes_to_array(self, boxes: np.ndarray) -> np.ndarray:
        """Turn checked boxes to the pixels of ``array``."""
        if self.geometry is None:
            return boxes
        if self.flat_axis is None:
            return self.geometry.canonical_boxes(boxes)
        low, high = (np.insert(boxes[:, ends], self.flat_axis, 0, axis=1) for ends in (slice(0, 2), slice(2, 4)))
        return np.delete(self.geometry.canonical_boxes(np.concatenate([low, high], axis=1)), [2, 5], axis=1)

    def boxes_from_world(self, boxes: np.ndarray) -> np.ndarray:
        """Turn boxes in mm, right-anterior-superior, to pixels of the source: Nx6 -> Nx6, Nx4 -> Nx4, ends sorted.

        Without a grid, mm are counted from the centre of the first pixel along x, y (and z).

        Raises:
            InputError: neither grid nor spacing.
        """
        boxes = np.asarray(boxes, np.float64)
        low, high = np.split(boxes, 2, axis=1)
        if self.geometry is None:
            if self.source_spacing is None:
                raise InputError(self.path, "spacing", "no spacing", "an image with a spacing for boxes in mm")
            steps = np.array(self.source_spacing)[: low.shape[1]]
            ends = np.stack([low / steps, high / steps])
        else:
            if low.shape[1] != 3:
                raise InputError(self.path, "boxes", f"{boxes.shape[1]} numbers in mm", "6 numbers in mm for a grid")
            inverse = np.linalg.inv(self.geometry.affine)
            corners = np.stack([np.where(last, high, low) for last in product((False, True), repeat=3)])  # 8xNx3
            placed = corners @ inverse[:3, :3].T + inverse[:3, 3]
            ends = np.stack([placed.min(axis=0), placed.max(axis=0)])
            if self.flat_axis is not None:
                ends = np.delete(ends, self.flat_axis, axis=2)
        return np.concatenate([ends.min(axis=0), ends.max(axis=0)], axis=1)

    def to_ijk(self, labels: np.ndarray) -> np.ndarray:
        """Turn a label map of the size of ``array`` to the axes of the source: IxJxK, K = 1 for a picture."""
        if self.geometry is not None:
            return self.geometry.restore(labels if self.kind == "volume" else labels[None])
        return np.atleast_3d(labels.T)  # HxW -> WxHx1, DxHxW -> WxHxD

    def from_ijk(self, labels: np.ndarray) -> np.ndarray:
        """Turn a label map IxJxK in the axes of the source to one of the size of ``array``."""
        if self.geometry is None:
            return np.squeeze(labels, 2).T if self.kind == "picture" else labels.T
        canonical = self.geometry.canonical(labels)
        return canonical if self.kind == "volume" else canonical[0]

    def to_source(self, labels: np.ndarray) -> np.ndarray:
        """Turn a label map of the size of ``array`` to one of the source's own shape and order of axes."""
        stored = self.to_ijk(labels) if self.ijk else self.to_zyx(labels)
        return stored if self.stored_shape is None else stored.reshape(self.stored_shape)

    def from_source(self, labels: np.ndarray) -> np.ndarray:
        """Inverse of ``to_source``.

        Raises:
            InputError: another shape than the source's own.
        """
        like = self.to_source(np.zeros(self.array.shape[: 2 if self.kind == "picture" else 3], bool))
        if np.shape(labels) != like.shape:
            raise InputError(self.path, "mask", f"shape {np.shape(labels)}", f"that of the image, {like.shape}")
        if self.ijk:
            return self.from_ijk(np.reshape(labels, self.grid.shape))
        if self.geometry is None:
            return labels
        stored = labels.T
        return self.from_ijk(stored if self.flat_axis is None else np.expand_dims(stored, self.flat_axis))

    def points_to_array(self, points: np.ndarray) -> np.ndarray:
        """Turn points in the pixels of the source, Px2 or of a volume Px3, to the pixels of ``array``."""
        return self.boxes_to_array(np.concatenate([points, points], axis=1))[:, : points.shape[1]]

    def to_zyx(self, labels: np.ndarray) -> np.ndarray:
        """Turn a label map of the size of ``array`` to the source's slices: HxW, of a volume DxHxW.

        Pixel (x, y) of slice z is voxel x, y, z of the source.
        """
        if self.geometry is None:
            return labels
        stored = self.to_ijk(labels)
        return np.ascontiguousarray((stored if self.flat_axis is None else stored.squeeze(self.flat_axis)).T)

    def take_slice(self, k: int) -> Image:
        """Return slice k along the third axis of a volume as a picture, turned as viewers show it.

        It keeps its place in space and the intensities of the whole volume (window, percentiles).
        """
        if self.geometry is None:
            spacing = None if self.spacing is None else self.spacing[1:]
            return replace(self, array=self.array[k], kind="picture", spacing=spacing, stored_shape=None)
        affine = self.geometry.affine.copy()
        affine[:3, 3] += affine[:3, 2] * k
        geometry = Geometry(affine, (*self.geometry.shape[:2], 1), self.geometry.source)
        plane = self.array[self.geometry.slice_index(k)]  # ZxHxW, 1 along the axis
        grid = Geometry(self.geometry.canonical_affine, plane.shape[2::-1])  # other slices are turned again
        return replace(
            self,
            array=grid.canonical(plane.swapaxes(0, 2))[0],
            kind="picture",
            geometry=geometry,
            spacing=geometry.spacing[1:],
            stored_shape=(*geometry.shape[:2], 1) if self.ijk else None,
        )

    def slice_name(self, z: int) -> str:
        """Name a slice of ``array`` by the axis and the number it has in the source, e.g. "z 12"."""
        number = z if self.geometry is None else int((self.geometry.to_source @ [0, 0, z, 1])[self._slice_axis])
        return f"{'xyz'[self._slice_axis]} {number}"

    @property
    def _slice_axis(self) -> int:
        """The source axis along the slices."""
        return 2 if self.geometry is None else int(np.abs(self.geometry.to_source[:3, 2]).argmax())
