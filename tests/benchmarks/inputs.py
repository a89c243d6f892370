"""The files to segment: parts of a fundus photograph from scikit-image, and random boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skimage import data

_SIDE = 512


def picture(folder: Path, boxes: int) -> Path:
    """Write a colour picture of 1024 x 1024 with boxes; returns the file."""
    image = np.ascontiguousarray(data.retina()[200:1224, 200:1224])
    path = folder / f"2D_Fundus_{boxes}.npz"
    np.savez(path, imgs=image, boxes=_boxes(boxes, len(image)))
    return path


def volume(folder: Path, slices: int, boxes: int) -> Path:
    """Write a grey volume of 512 x 512 with boxes through all its slices; returns the file."""
    grey = data.retina()[..., 1]
    imgs = np.stack([grey[300 + z : 300 + z + _SIDE, 300 : 300 + _SIDE] for z in range(slices)])
    flat = _boxes(boxes, _SIDE)
    ends = np.zeros((boxes, 1)), np.full((boxes, 1), slices - 1)
    path = folder / f"3D_CT_{slices}_{boxes}.npz"
    np.savez(path, imgs=imgs, boxes=np.hstack([flat[:, :2], ends[0], flat[:, 2:], ends[1]]), spacing=[5.0, 0.8, 0.8])
    return path


def lite_medsam_picture(folder: Path) -> Path:
    """Write the picture with one box in the layout of LiteMedSAM's own command line; returns the folder."""
    with np.load(picture(folder, 1)) as content:
        image, box = content["imgs"], content["boxes"][0]
    inputs = folder / "lite_medsam"
    inputs.mkdir()
    np.savez(inputs / "picture.npz", image=image, box=box * 256 / len(image))
    return inputs


def _boxes(count: int, side: int) -> np.ndarray:
    """Return boxes Nx4 with sides of 0.1 to 0.4 of the picture's."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, int(0.6 * side), (count, 2))
    return np.hstack([low, low + rng.integers(side // 10, int(0.4 * side), (count, 2))]).astype(np.float64)
