"""CVPR24 "MedSAM on laptop" files: ``{2D|3D}_{Modality}_*.npz`` read with imgs and boxes, written with ``segs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.arrays import read_npz_arrays
from custom.images.decoding import as_label, check_size, no_choice
from custom.images.formats import always, file_ending
from custom.images.image import Image

ENDINGS = (".npz",)
DESCRIPTION = "npz of the CVPR24 challenge (.npz)"
MASK = "npz"

_LAYOUTS = "imgs (HxW, HxWx3 or DxHxW) and boxes (Nx4 or Nx6)"
_LABELS = ("segs", "gts")  # of a result, and of the challenge

recognises = file_ending(ENDINGS)
mask_ending = always(".npz")
mask_problem = always(None)


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read ``imgs``, ``boxes`` and ``spacing``, or with ``labels`` the ids of ``segs``, else of ``gts``.

    An array whose last axis has 3 entries can be a colour picture or a narrow volume. The boxes decide, or without
    them the 2D or 3D of the name. A volume may be one slice deep: its boxes have 6 numbers.

    Raises:
        InputError: not a readable npz, an array that is missing or malformed, or a frame or series is chosen.
    """
    no_choice(path, frame=frame, series=series)
    arrays = read_npz_arrays(path, (*_LABELS, "spacing") if labels else ("imgs", "boxes", "spacing"))
    field = next((name for name in (_LABELS if labels else ("imgs",)) if name in arrays), None)
    layouts = "segs or gts (HxW or DxHxW)" if labels else _LAYOUTS
    if field is None:
        raise InputError(path, _LABELS[0] if labels else "imgs", "no such array", layouts)
    array, boxes = arrays[field], arrays.get("boxes")
    if array.ndim not in (2, 3) or not array.size:
        raise InputError(path, field, f"shape {array.shape}", layouts)
    volume = array.ndim == 3 if labels else _is_volume(array, boxes, Path(path).name)
    array = array if volume else array[None]
    check_size(array.shape[:3], path)
    return Image(
        path=str(path),
        format="npz",
        array=as_label(array, path) if labels else array,
        kind="volume" if volume else "picture",
        spacing=_spacing(arrays["spacing"], path) if volume and "spacing" in arrays else None,
        boxes=boxes,
    )


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map as ``segs``, uint8 if its values allow it; the file appears whole or not at all."""
    small = labels.astype(np.uint8 if labels.max() <= np.iinfo(np.uint8).max else np.uint16)
    write_whole(path, lambda file: np.savez_compressed(file, segs=image.to_zyx(small)))


def _is_volume(imgs: np.ndarray, boxes: np.ndarray | None, name: str) -> bool:
    if imgs.ndim == 2 or imgs.shape[2] != 3:
        return imgs.ndim == 3
    return name.startswith("3D_") if boxes is None else boxes.shape[-1:] == (6,)


def _spacing(spacing: np.ndarray, path: str) -> tuple[float, float, float]:
    """Reverse (x, y, z), the order of the challenge's files."""
    if spacing.shape != (3,) or spacing.dtype.kind not in "iuf" or not (0 < spacing).all() or np.isinf(spacing).any():
        raise InputError(path, "spacing", spacing.tolist(), "three positive numbers (x, y, z) in mm")
    x, y, z = (float(s) for s in spacing)
    return z, y, x
