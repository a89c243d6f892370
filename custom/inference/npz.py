"""CVPR24 "MedSAM on laptop" files: ``{2D|3D}_{Modality}_*.npz`` with imgs and boxes in, ``segs`` out."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.files import write_whole
from custom.images.arrays import read_npz_arrays
from custom.images.decoding import check_size
from custom.modalities import canonical_modality

_LAYOUTS = "imgs (HxW, HxWx3 or DxHxW) and boxes (Nx4 or Nx6)"


@dataclass(frozen=True, kw_only=True, eq=False)
class NpzCase:
    """One file as it is stored.

    Attributes:
        imgs: HxW, HxWx3 or DxHxW of any real dtype.
        boxes: Nx4 or Nx6, not checked; None where the file has none.
        spacing: (z, y, x) in mm of a volume; None where the file has none.
        volume: whether imgs is a volume.
    """

    imgs: np.ndarray
    boxes: np.ndarray | None
    spacing: tuple[float, float, float] | None
    volume: bool


def challenge_modality(path: str | PathLike[str]) -> str | None:
    """Return the modality that a name in the challenge's form tells, e.g. "CT" of ``3D_CT_liver_01.npz``, else None.

    Raises:
        InputError: the name has that form with another modality.
    """
    parts = Path(path).name.partition(".")[0].split("_")
    return canonical_modality(parts[1], str(path)) if parts[0] in ("2D", "3D") and len(parts) > 1 else None


def read_npz(path: str | PathLike[str]) -> NpzCase:
    """Read one file.

    An array of three columns at the end can be a colour picture or a narrow volume; then the boxes tell, and without
    them the name's 2D or 3D.

    Raises:
        InputError: not a readable npz, or an array that is missing or malformed.
    """
    arrays = read_npz_arrays(path, ("imgs", "boxes", "spacing"))
    if "imgs" not in arrays:
        raise InputError(path, "imgs", "no such array", _LAYOUTS)
    imgs, boxes = arrays["imgs"], arrays.get("boxes")
    if imgs.ndim not in (2, 3) or not imgs.size:
        raise InputError(path, "imgs", f"shape {imgs.shape}", _LAYOUTS)
    volume = _is_volume(imgs, boxes, Path(path).name)
    check_size(imgs.shape[:3] if volume else (1, *imgs.shape[:2]), path)
    spacing = _spacing(arrays["spacing"], path) if volume and "spacing" in arrays else None
    return NpzCase(imgs=imgs, boxes=boxes, spacing=spacing, volume=volume)


def write_segs(path: Path, labels: np.ndarray) -> None:
    """Write a label map as ``segs``, uint8 where its values allow it; the file appears whole or not at all."""
    small = labels.astype(np.uint8 if labels.max() <= np.iinfo(np.uint8).max else np.uint16)
    write_whole(path, lambda file: np.savez_compressed(file, segs=small))


def _is_volume(imgs: np.ndarray, boxes: np.ndarray | None, name: str) -> bool:
    if imgs.ndim == 2 or imgs.shape[2] != 3:
        return imgs.ndim == 3
    return name.startswith("3D_") if boxes is None else boxes.shape[-1:] == (6,)


def _spacing(spacing: np.ndarray, path: str | PathLike[str]) -> tuple[float, float, float]:
    """Turn (x, y, z), the order of the challenge's files, round."""
    if spacing.shape != (3,) or spacing.dtype.kind not in "iuf" or not (0 < spacing).all() or np.isinf(spacing).any():
        raise InputError(path, "spacing", spacing.tolist(), "three positive numbers (x, y, z) in mm")
    x, y, z = (float(s) for s in spacing)
    return z, y, x
