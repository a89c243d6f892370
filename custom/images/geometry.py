"""Where a volume lies in the patient, and how it is turned to the orientation the network sees and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from custom.errors import InputError

# World axis the slices follow -> directions of (column, row, slice), as radiologists see them.
_PLANES = {
    0: "PIL",  # sagittal: row 0 superior, column 0 anterior
    1: "LIP",  # coronal: row 0 superior, column 0 the patient's right
    2: "LPS",  # axial: row 0 anterior, column 0 the patient's right
}
_THICK = 2.0


@dataclass(frozen=True)
class Geometry:
    """The grid of a source volume.

    The canonical array of a volume is (Z, H, W): axial slices, z from inferior to superior, row 0 anterior, column 0
    the patient's right. A volume whose slices were taken in another plane keeps that plane: sagittal, z from right to
    left, row 0 superior, column 0 anterior; or coronal, z from anterior to posterior, row 0 superior, column 0 the
    patient's right. If the spacing across the slices is more than twice the others, or there is only one slice, that
    axis decides the plane. Turning only permutes and reverses axes, so it is exact in both directions.

    Args:
        affine: 4x4, voxel index (i, j, k) of the source array -> position in mm, right-anterior-superior (NIfTI's).
        shape: (I, J, K) of the source array.
        source: the file, for the error.

    Raises:
        InputError: the affine is not 4x4, not finite or not invertible.

    Example:
        >>> geometry = Geometry(np.diag([-0.7, -0.7, 5.0, 1.0]), (512, 384, 20))
        >>> geometry.canonical(np.zeros((512, 384, 20))).shape, geometry.spacing
        ((20, 384, 512), (5.0, 0.7, 0.7))
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    source: str = ""

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)  # a copy, so that no one else can change it
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or _is_flat(affine[:3, :3]):
            raise InputError(self.source, "affine", affine.tolist(), "a finite, invertible 4x4 matrix")

    @cached_property
    def _canonical(self) -> np.ndarray:
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        single, thick = [axis for axis, n in enumerate(self.shape) if n == 1], int(spacing.argmax())
        if single:
            across = single[-1]
        elif spacing[thick] > _THICK * np.delete(spacing, thick).max():
            across = thick
        else:
            return axcodes2ornt(_PLANES[2])
        return axcodes2ornt(_PLANES[int(io_orientation(self.affine)[across, 0])])

    @cached_property
    def _turn(self) -> np.ndarray:
        return ornt_transform(io_orientation(self.affine), self._canonical)

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Shape (Z, H, W) of the canonical array."""
        x, y, z = (self.shape[axis] for axis in np.argsort(self._turn[:, 0]))
        return z, y, x

    def slice_index(self, k: int) -> tuple[slice, ...]:
        """Return the index of slice k along the third axis of the source in the canonical array (Z, H, W)."""
        (axis, direction), index = self._turn[2], [slice(None)] * 3
        place = k if direction > 0 else self.shape[2] - 1 - k
        index[2 - int(axis)] = slice(place, place + 1)
        return tuple(index)

    @cached_property
    def to_source(self) -> np.ndarray:
        """4x4, (x, y, z) of the canonical array -> voxel index (i, j, k) of the source: x is its last axis."""
        return inv_ornt_aff(self._turn, self.shape)

    @property
    def canonical_affine(self) -> np.ndarray:
        """4x4, (x, y, z) of the canonical array -> mm."""
        return self.affine @ self.to_source

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing (z, y, x) of the canonical array in mm."""
        x, y, z = (round(float(s), 6) for s in np.linalg.norm(self.canonical_affine[:3, :3], axis=0))
        return z, y, x

    def canonical(self, array: np.ndarray) -> np.ndarray:
        """Turn a source array to the canonical one: IxJxK -> ZxHxW, IxJxKxC -> ZxHxWxC."""
        if array.shape[:3] != self.shape:
            raise ValueError(f"array: found shape {array.shape}; allowed: {self.shape}")
        turned = nib.apply_orientation(array, self._turn)
        return np.ascontiguousarray(turned.swapaxes(0, 2))  # XxYxZ[xC] -> ZxYxX[xC]

    def put_slice(self, canonical: np.ndarray, plane: np.ndarray, k: int) -> None:
        """Put slice k (along the third axis of the source), IxJ, into a canonical array ZxHxW."""
        canonical[self.slice_index(k)] = nib.apply_orientation(plane[:, :, None], self._turn).T

    def restore(self, array: np.ndarray) -> np.ndarray:
        """Turn a canonical array back to the source's axes: ZxHxW -> IxJxK."""
        back = ornt_transform(self._canonical, io_orientation(self.affine))
        restored = nib.apply_orientation(array.transpose(2, 1, 0), back)  # ZxYxX -> XxYxZ -> IxJxK
        if restored.shape != self.shape:
            raise ValueError(f"array: found shape {array.shape}; allowed: the canonical shape of {self.shape}")
        return np.ascontiguousarray(restored)

    def canonical_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Turn boxes along: Nx6 (i j k)_min (i j k)_max in source voxels -> (x y z)_min (x y z)_max, canonical."""
        return _moved_boxes(boxes, np.linalg.inv(self.to_source))

    def source_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Turn boxes back: Nx6 (x y z)_min (x y z)_max, canonical -> (i j k)_min (i j k)_max in source voxels."""
        return _moved_boxes(boxes, self.to_source)

    def same_grid(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Return whether another volume has the same shape and place, within ``tolerance`` mm at every corner."""
        if self.shape != other.shape:
            return False
        corners = np.array([*product(*((0, n - 1) for n in self.shape), [1])])
        return bool(np.abs((self.affine - other.affine) @ corners.T).max() <= tolerance)

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        return {"affine": self.affine.tolist(), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str = "") -> Geometry:
        """Build from ``{"affine": 4x4, "shape": [I, J, K]}``."""
        return cls(np.asarray(value["affine"]), tuple(value["shape"]), source)


def _moved_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move boxes, Nx6, by a 4x4 matrix that permutes, reverses and shifts axes, which is exact."""
    ends = np.asarray(boxes, np.float64).reshape(-1, 2, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1)


def _is_flat(steps: np.ndarray) -> bool:
    """Return whether the axes of a grid, 3x3, have no length or lie in one plane, for any voxel size."""
    lengths = np.linalg.norm(steps, axis=0)
    return not lengths.all() or abs(np.linalg.det(steps / lengths)) < 1e-6
