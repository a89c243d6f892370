"""One slice out of an image, and masks back onto the image's own grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from custom.images.geometry import Geometry
from custom.inference.sources import InputImage

#: Where clients put what has no place in space: pixel (x, y) at (x, y, 0) mm left-posterior-superior.
NOWHERE = np.diag([-1.0, -1.0, 1.0, 1.0])


def take_slice(volume: InputImage, k: int) -> InputImage:
    """Return slice k along the third axis of the file as a picture, seen as viewers show it.

    It keeps its place in space and the intensities of the whole volume (window, percentiles).
    """
    if volume.geometry is None:
        spacing = None if volume.spacing is None else volume.spacing[1:]
        return replace(volume, array=volume.array[k], kind="picture", format="picture", spacing=spacing)
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += affine[:3, 2] * k
    geometry = Geometry(affine, (*volume.geometry.shape[:2], 1), volume.geometry.source)
    axis = volume.geometry.canonical_axis(2)
    turned = volume.geometry.canonical_boxes(np.array([[0, 0, k, 0, 0, k]]))[0]
    plane = np.take(volume.array, [int(turned[2 - axis])], axis=axis)  # ZxHxW, 1 along the axis
    grid = Geometry(volume.geometry.canonical_affine, plane.shape[2::-1])  # a slice across another axis is turned again
    if plane.ndim == 3:
        picture = grid.canonical(plane.transpose(2, 1, 0))[0]
    else:
        picture = np.stack([grid.canonical(c.transpose(2, 1, 0))[0] for c in np.moveaxis(plane, 3, 0)], axis=2)
    return replace(volume, array=picture, kind="picture", geometry=geometry, spacing=geometry.spacing[1:])


def to_source(labels: np.ndarray, image: InputImage) -> np.ndarray:
    """Turn a label map of the size of ``image.array`` to the axes of the file: IxJxK, K = 1 for a picture."""
    if image.geometry is not None:
        return image.geometry.restore(image.to_canonical(labels))
    return np.atleast_3d(labels.T)  # HxW -> WxHx1, DxHxW -> WxHxD


def put_slice(labels: np.ndarray, volume: InputImage, k: int) -> np.ndarray:
    """Put a slice IxJx1 into an otherwise empty label map of the volume: IxJxK."""
    whole = np.zeros(volume.size, labels.dtype)
    whole[:, :, k] = labels[:, :, 0]
    return whole


def affine_of(image: InputImage) -> np.ndarray:
    """Return 4x4, voxel of the file -> mm right-anterior-superior."""
    return NOWHERE if image.geometry is None else image.geometry.affine
