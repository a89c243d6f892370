"""The objects of an existing mask, or the boxes around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from custom.errors import InputError
from custom.images.boxes import MAX_BOXES
from custom.images.formats import dicom, format_of
from custom.images.image import Image
from custom.images.reading import read_labels


def mask_boxes(path: str, image: Image, margin: int = 0) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return the tight box of each value above 0 of a mask, in ascending order.

    The mask lies on the grid of the image, with its axes in any order; if one of them has no grid, pixel x, y of
    slice z of the mask is the same pixel of the image's source.

    Args:
        path: mask of any format that can be read; a SEG or RTSTRUCT needs its DICOM series as the image.
        image: the image as the network sees it.
        margin: pixels by which the boxes grow in the plane of the slices; they are clipped at the border.

    Returns:
        Boxes in pixels of the image's source, Nx4 for a picture, Nx6 for a volume; and the names of a SEG or RTSTRUCT.

    Raises:
        InputError: the mask cannot be read, is empty, or lies on another grid.
    """
    if format_of(path) is dicom:
        array, known = dicom.read_label_object(path, image)
        values, boxes = _tight_boxes(array, path)
        boxes, names = _drop_z(boxes, image), tuple(known[value] for value in values)
    else:
        boxes, names = _boxes_of_labels(path, image), None
    height, width = image.array.shape[:2] if image.kind == "picture" else image.array.shape[1:3]
    ends = boxes.shape[1] // 2
    boxes[:, :2] = np.maximum(boxes[:, :2] - margin, 0)
    boxes[:, ends : ends + 2] = np.minimum(boxes[:, ends : ends + 2] + margin, [width - 1, height - 1])
    return _to_source(boxes, image), names


def mask_objects(path: str, image: Image) -> tuple[list[np.ndarray], tuple[str, ...] | None]:
    """Return the mask of each value above 0 of a mask file, in ascending order; for pictures.

    Args:
        path: as for ``mask_boxes``.
        image: the image as the network sees it.

    Returns:
        Masks in the shape of the image's source, bool; and the names of a SEG or RTSTRUCT.

    Raises:
        InputError: as for ``mask_boxes``, or the image is a volume.
    """
    if image.kind == "volume":
        raise InputError(path, "mask", "a mask for a volume", "a mask for a picture")
    known: dict[int, str] = {}
    if format_of(path) is dicom:
        array, known = dicom.read_label_object(path, image)
    else:
        labels = read_labels(path, image)
        array = labels.array
        if image.geometry is None or labels.geometry is None:
            _check_shape(labels, image, path)
            ijk = labels.to_ijk(array[0]) if labels.kind == "picture" else labels.to_ijk(array)
            array = image.from_ijk(ijk.reshape(image.grid.shape))[None]
    values = [int(value) for value in np.unique(array) if value > 0]
    if not values:
        raise InputError(path, "mask", "an empty mask", "a mask with values above 0")
    names = tuple(known[value] for value in values) if known else None
    return [image.to_source(array[0] == value) for value in values], names


def _boxes_of_labels(path: str, image: Image) -> np.ndarray:
    """Return the boxes of a label map in pixels of ``image.array``."""
    labels = read_labels(path, image)
    _, boxes = _tight_boxes(labels.array, path)
    if image.geometry is not None and labels.geometry is not None:  # both arrays are canonical
        return _drop_z(boxes, image)
    _check_shape(labels, image, path)
    stored = boxes if labels.geometry is None else labels.geometry.source_boxes(boxes)
    return image.boxes_to_array(_drop_z(stored, image))


def _check_shape(labels: Image, image: Image, path: str) -> None:
    """Check that pixel x, y of slice z exists in both, where one of them has no grid."""
    shape = labels.array.shape[::-1] if labels.geometry is None else labels.geometry.shape
    if shape != (*image.size, 1)[:3]:
        found = " x ".join(map(str, shape))
        raise InputError(path, "shape", found, f"the image's {' x '.join(map(str, image.size))}")


def _drop_z(boxes: np.ndarray, image: Image) -> np.ndarray:
    return np.delete(boxes, [2, 5], axis=1) if image.kind == "picture" else boxes


def _tight_boxes(labels: np.ndarray, path: str) -> tuple[list[int], np.ndarray]:
    """Return the values above 0 of a label map ZxHxW and their boxes, Nx6, both ends inside."""
    from scipy.ndimage import find_objects  # slow to import

    largest = int(labels.max(initial=0))
    values: Sequence[int] = range(1, largest + 1)
    if largest > MAX_BOXES:  # ``find_objects`` lists every number up to the largest
        values, places = np.unique(labels, return_inverse=True)
        labels = places.reshape(labels.shape) + 1
    found = {int(n): place for n, place in zip(values, find_objects(labels), strict=True) if n and place is not None}
    if not found:
        raise InputError(path, "boxes", "an empty mask", "a mask with values above 0")
    ends = [[*(s.start for s in p[::-1]), *(s.stop - 1 for s in p[::-1])] for p in found.values()]
    return list(found), np.array(ends, np.float64)


def _to_source(boxes: np.ndarray, image: Image) -> np.ndarray:
    """Convert boxes in pixels of ``image.array`` to pixels of its source: the inverse of ``Image.boxes_to_array``."""
    if image.geometry is None:
        return boxes
    if image.flat_axis is None:
        return image.geometry.source_boxes(boxes)
    restored = image.geometry.source_boxes(np.insert(boxes, [2, 4], 0, axis=1))
    return np.delete(restored, [image.flat_axis, image.flat_axis + 3], axis=1)
