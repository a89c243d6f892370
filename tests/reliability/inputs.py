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
    inside = sum(((axis - n / 2) / max(n / 4, 0.5)) ** 2 for axis, n in zip(axes, shape, strict=True)) < 1
    image[np.broadcast_to(inside, shape)] += 150
    return image


def middle_box(shape: tuple[int, ...]) -> list[int]:
    """Return a box around the ellipsoid of ``scene``: x_min y_min [z_min] x_max y_max [z_max]."""
    low = [n // 5 for n in shape[::-1]]
    return low + [max(n - 1 - a, a) for n, a in zip(shape[::-1], low, strict=True)]


def write_images(folder: Path, count: int, *, colour: bool = True) -> Path:
    """Write ``count`` images, in turn PNG, NIfTI, npz (2D and 3D), TIFF stack, and their list; return the list."""
    folder.mkdir(parents=True)
    entries = []
    for n in range(count):
        flat, deep = scene((40 + 7 * n, 60), n), scene((5, 30, 30 + 5 * n), n)
        boxes = {"boxes": [middle_box(flat.shape), [3, 4, 20, 30]]}
        kind = n % 5
        if kind == 0:
            name = f"{n}.png"
            Image.fromarray(np.stack([flat, flat // 2, flat], axis=2) if colour else flat).save(folder / name)
        elif kind == 1:
            name = f"{n}.nii.gz"
            image = nib.Nifti1Image(deep.transpose(2, 1, 0), np.diag([-0.8, -0.8, 2.0, 1]))
            nib.save(image, folder / name)
        elif kind == 2:
            name = f"2D_US_{n}.npz"
            np.savez(folder / name, imgs=flat, **boxes)
        elif kind == 3:
            name = f"{n}.tif"
            tifffile.imwrite(folder / name, deep, photometric="minisblack")
        else:
            name = f"3D_MR_{n}.npz"
            np.savez(folder / name, imgs=deep, boxes=[middle_box(deep.shape)])
        entry = {"image": name, "modality": "US"}
        if kind in (1, 3):
            boxes = {"boxes": [middle_box(deep.shape)]}
        entries.append(entry if name.endswith(".npz") else entry | boxes)
    (folder / "list.json").write_text(json.dumps(entries))
    return folder / "list.json"
