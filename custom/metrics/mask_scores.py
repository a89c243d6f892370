"""Dice similarity and normalised surface Dice of binary masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_dice
from monai.metrics.utils import get_mask_edges
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from custom.errors import InputError


def dice_score(pred: Tensor | np.ndarray, label: Tensor | np.ndarray) -> np.ndarray:
    """Return the Dice similarity coefficient of each mask.

    Args:
        pred: predicted masks, (N, H, W) or (N, D, H, W), bool or {0, 1}, on any device.
        label: reference masks of the same shape.

    Returns:
        (N,) float64 in [0, 1]; 1 where both masks are empty, 0 where exactly one is.

    Raises:
        InputError: the shapes differ or are neither (N, H, W) nor (N, D, H, W).
    """
    pred, label = _mask_pair(pred, label)
    # One mask at a time: MONAI turns masks into float32, four times the memory of a stack of volumes.
    scores = [
        compute_dice(p[None, None], t[None, None].to(p.device), ignore_empty=False)[0, 0]
        for p, t in zip(pred, label, strict=True)
    ]
    return torch.stack(scores).double().cpu().numpy() if scores else np.zeros(0)


def surface_dice(
    pred: Tensor | np.ndarray,
    label: Tensor | np.ndarray,
    *,
    tolerance: float = 2.0,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Return the normalised surface Dice (NSD) of each mask, as defined by DeepMind's ``surface-distance``.

    The surface elements and their areas are those of MONAI's subvoxel surface Dice. Their distances are computed here
    by the same exact transform as in DeepMind's package, in float64: MONAI's ``compute_surface_dice`` rounds distances
    to float32 before it compares them with the tolerance, so that with a voxel size such as 0.6666667 mm a distance of
    3 voxels (2.0000001 mm) counts as within 2 mm, which changes the score by up to several percent.

    Args:
        pred: predicted masks, (N, H, W) or (N, D, H, W), bool or {0, 1}, on any device.
        label: reference masks of the same shape.
        tolerance: largest accepted distance between the surfaces, in the unit of ``spacing``.
        spacing: size of a pixel or voxel along each spatial axis, in the axes' order, e.g. (sz, sy, sx) in mm;
            ``None`` stands for 1, so that the tolerance is in pixels.

    Returns:
        (N,) float64 in [0, 1]; 1 where both masks are empty, 0 where exactly one is.

    Raises:
        InputError: the shapes differ or are neither (N, H, W) nor (N, D, H, W), or the spacing does not fit them.
    """
    pred, label = (masks.cpu().numpy() for masks in _mask_pair(pred, label))
    axes = pred.ndim - 1
    step = (1.0,) * axes if spacing is None else tuple(float(s) for s in spacing)
    if len(step) != axes or not all(0 < s < np.inf for s in step):
        raise InputError("surface_dice", "spacing", spacing, f"{axes} positive numbers, one for each spatial axis")
    return np.array([_surface_dice(p, t, tolerance, step) for p, t in zip(pred, label, strict=True)], dtype=float)


def _mask_pair(pred: Tensor | np.ndarray, label: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """Return both as bool tensors, checked."""
    pred, label = (torch.as_tensor(masks).bool() for masks in (pred, label))
    if pred.shape != label.shape or pred.ndim not in (3, 4):
        found = f"{tuple(pred.shape)} and {tuple(label.shape)}"
        raise InputError("masks", "shapes of prediction and label", found, "one shape (N, H, W) or (N, D, H, W)")
    return pred, label


def _surface_dice(pred: np.ndarray, label: np.ndarray, tolerance: float, step: tuple[float, ...]) -> float:
    """NSD of one pair of masks, H x W or D x H x W."""
    if not (pred.any() and label.any()):
        return float(pred.any() == label.any())
    # The joint bounding box plus one voxel holds every surface element of both masks, so cropping loses nothing.
    box = find_objects((pred | label).view(np.uint8))[0]
    pair = [torch.from_numpy(np.pad(mask[box], 1)) for mask in (pred, label)]
    edge_pred, edge_label, area_pred, area_label = (x.numpy() for x in get_mask_edges(*pair, crop=False, spacing=step))
    accepted = total = 0.0
    for edge, area, other in ((edge_pred, area_pred, edge_label), (edge_label, area_label, edge_pred)):
        near = distance_transform_edt(~other, sampling=step)[edge] <= tolerance
        areas = area[edge].astype(np.float64)
        accepted, total = accepted + areas[near].sum(), total + areas.sum()
    return float(accepted / total)
