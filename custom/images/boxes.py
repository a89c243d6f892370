"""Boxes: checked, and made from masks."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np

from custom.errors import InputError

MAX_BOXES = np.iinfo(np.uint16).max


def check_boxes(
    boxes: object,
    shape: Sequence[int],
    source: str | PathLike[str],
    *,
    slice_axis: int = 2,
    flat_axis: int | None = None,
) -> np.ndarray:
    """Check boxes against their image.

    Args:
        boxes: N boxes (or one), each x_min y_min x_max y_max, for a volume x_min y_min z_min x_max y_max z_max; in
            native pixels, both ends inside. A box is at least two pixels wide and high if the image is; it may be
            one slice deep.
        shape: (H, W) of the picture or (D, H, W) of the volume.
        source: file the boxes belong to, for the error.
        slice_axis: the axis of a volume along which a box may be one voxel deep: 0, 1, 2 for x, y, z.
        flat_axis: the axis across a picture that was cut out of space, where boxes may also have 6 numbers, 0 there.

    Returns:
        Nx4 (Nx6) float64.

    Raises:
        InputError: no box, a wrong number of values, a value that is not finite, an end before its start, or a box
            that extends beyond the image.
    """
    axes = "xyz"[: len(shape)]
    names = [f"{axis}_{end}" for end in ("min", "max") for axis in axes]
    try:
        array = np.atleast_2d(np.asarray(boxes, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        raise InputError(source, "boxes", repr(boxes)[:80], f"lists of {len(names)} numbers") from None
    third = [] if flat_axis is None else [flat_axis, flat_axis + 3]
    if third and array.ndim == 2 and array.shape[1] == 6 and not array[:, third].any():
        array = np.delete(array, third, axis=1)
    _check_layout(array, names, source)
    sizes = np.array(shape[::-1])  # (x, y[, z])
    for i, box in enumerate(array):
        low, high = box[: len(axes)], box[len(axes) :]
        found = [float(v) if v != int(v) else int(v) for v in box] if np.isfinite(box).all() else box.tolist()
        if not np.isfinite(box).all():
            raise InputError(source, f"boxes[{i}]", found, "finite numbers")
        for n, axis in enumerate(axes):
            thin = n == slice_axis or sizes[n] == 1
            if high[n] < low[n] or (high[n] == low[n] and not thin):
                relation = "<=" if thin else "<"
                raise InputError(source, f"boxes[{i}]", found, f"{axis}_min {relation} {axis}_max")
        if (low < 0).any() or (high > sizes - 1).any():
            limits = ", ".join(f"{axis} 0 to {size - 1}" for axis, size in zip(axes, sizes, strict=True))
            raise InputError(source, f"boxes[{i}]", found, f"inside the image: {limits}")
    return array


def tight_boxes(masks: np.ndarray) -> np.ndarray:
    """Return the tight boxes of non-empty masks, both ends inside: NxHxW -> Nx4 float (x_min y_min x_max y_max)."""
    columns, rows = masks.any(axis=1), masks.any(axis=2)  # NxW, NxH
    first = [line.argmax(axis=1) for line in (columns, rows)]
    last = [line.shape[1] - 1 - line[:, ::-1].argmax(axis=1) for line in (columns, rows)]
    return np.stack(first + last, axis=1).astype(np.float64)


def _check_layout(array: np.ndarray, names: Sequence[str], source: str | PathLike[str]) -> None:
    allowed = f"(N, {len(names)}): {' '.join(names)}"
    if not array.size:
        raise InputError(source, "boxes", "no box", allowed)
    if array.ndim != 2 or array.shape[1] not in (4, 6):
        raise InputError(source, "boxes", f"shape {array.shape}", allowed)
    if len(array) > MAX_BOXES:
        raise InputError(source, "boxes", f"{len(array)} boxes", f"at most {MAX_BOXES}, the ids of a label map")
    if array.shape[1] != len(names):
        kind = "a picture" if len(names) == 4 else "a volume"
        raise InputError(source, "boxes", f"{array.shape[1]} numbers per box for {kind}", allowed)
