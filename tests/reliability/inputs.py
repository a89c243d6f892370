"""Images of every kind and size with boxes, computed."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image


def scene(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a dark noisy image with a bright ellipsoid in its middle half, HxW or DxHxW uint8."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, shape, np.uint8)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    inside = sum(((axis + 0.5 - n / 2) / (n / 4 + 0.5)) ** 2 for axis, n in zip(axes, shape, strict=True)) < 1
    image[inside] += 150
    return image


def middle_box(shape: tuple[int, ...]) -> list[int]:
    """Return a box around the ellipsoid of ``scene``: x_min y_min [z_min] x_max y_max [z_max]."""
    low = [n // 5 for n in shape[::-1]]
    return low + [n - 1 - a for n, a in zip(shape[::-1], low, strict=True)]


def write_volume(path: Path, volume: np.ndarray) -> Path:
    """Write a volume DxHxW as NIfTI with boxes in the array's axes; return the file."""
    nib.save(nib.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-0.8, -0.8, 2.0, 1])), path)
    return path


def write_images(folder: Path, count: int) -> Path:
    """Write a number of images, in turn PNG, NIfTI, npz (2D), TIFF stack, npz (3D), and their list; return the list."""
    folder.mkdir(parents=True)
    entries = [_write(folder, n) | {"modality": "US"} for n in range(count)]
    (folder / "list.json").write_text(json.dumps(entries))
    return folder / "list.json"


def _write(folder: Path, n: int) -> dict[str, object]:
    """Write image n and return its entry in the list."""
    flat, deep = scene((40 + 7 * n, 60), n), scene((5, 30, 30 + 5 * n), n)
    flat_boxes, deep_boxes = [middle_box(flat.shape), [3, 4, 20, 30]], [middle_box(deep.shape)]
    match n % 5:
        case 0:
            Image.fromarray(np.stack([flat, flat // 2, flat], axis=2)).save(folder / f"{n}.png")
            return {"image": f"{n}.png", "boxes": flat_boxes}
        case 1:
            return {"image": write_volume(folder / f"{n}.nii.gz", deep).name, "boxes": deep_boxes}
        case 2:
            np.savez(folder / f"2D_US_{n}.npz", imgs=flat, boxes=flat_boxes)
            return {"image": f"2D_US_{n}.npz"}
        case 3:
            tifffile.imwrite(folder / f"{n}.tif", deep, photometric="minisblack")
            return {"image": f"{n}.tif", "boxes": deep_boxes}
        case _:
            np.savez(folder / f"3D_MR_{n}.npz", imgs=deep, boxes=deep_boxes)
            return {"image": f"3D_MR_{n}.npz"}
