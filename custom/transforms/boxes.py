"""Boxes: checked, and made from masks."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch

from custom.errors import InputError


def check_boxes(boxes: object, shape: Sequence[int], source: str | PathLike[str]) -> np.ndarray:
    """Check boxes against the image they are meant for.

    Args:
        boxes: N boxes (or one), each x_min y_min x_max y_max, for a volume x_min y_min z_min x_max y_max z_max; in
            native pixels, both ends inside.
        shape: (H, W) of the picture or (D, H, W) of the volume.
        source: file the boxes belong to, for the error.

    Returns:
        Nx4 (Nx6) float64.

    Raises:
        InputError: no box, a wrong number of values, a value that is not finite, an end before its start, or a box
            that leaves the image.
    """
    axes = "xyz"[: len(shape)]
    names = [f"{axis}_{end}" for end in ("min", "max") for axis in axes]
    try:
        array = np.atleast_2d(np.asarray(boxes, dtype=np.float64))
    except (TypeError, ValueError):
        raise InputError(source, "boxes", repr(boxes)[:80], f"lists of {len(names)} numbers") from None
    if array.ndim != 2 or array.shape[1] != len(names) or not len(array):
        raise InputError(source, "boxes", f"shape {array.shape}", f"(N, {len(names)}): {' '.join(names)}")
    sizes = np.array(shape[::-1])  # (x, y[, z])
    for i, box in enumerate(array):
        low, high = box[: len(axes)], box[len(axes) :]
        found = [float(v) if v != int(v) else int(v) for v in box] if np.isfinite(box).all() else box.tolist()
        if not np.isfinite(box).all():
            raise InputError(source, f"boxes[{i}]", found, "finite numbers")
        flat = [axis for axis, a, b in zip(axes[:2], low, high, strict=False) if b <= a]
        flat += ["z"] if len(axes) == 3 and high[2] < low[2] else []
        if flat:
            relation = "<=" if flat[0] == "z" else "<"
            raise InputError(source, f"boxes[{i}]", found, f"{flat[0]}_min {relation} {flat[0]}_max")
        if (low < 0).any() or (high > sizes - 1).any():
            limits = ", ".join(f"{axis} 0 to {size - 1}" for axis, size in zip(axes, sizes, strict=True))
            raise InputError(source, f"boxes[{i}]", found, f"inside the image: {limits}")
    return array


def tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Return the tight boxes of non-empty masks, both ends inside: NxHxW -> Nx4 float (x_min y_min x_max y_max)."""
    columns, rows = masks.amax(dim=1) > 0, masks.amax(dim=2) > 0  # NxW, NxH
    return torch.stack([_first(columns), _first(rows), _last(columns), _last(rows)], dim=1).float()


def _first(line: torch.Tensor) -> torch.Tensor:
    return line.int().argmax(dim=1)


def _last(line: torch.Tensor) -> torch.Tensor:
    return line.shape[1] - 1 - line.flip(1).int().argmax(dim=1)
