"""Scores of a predicted label map against a true one, label by label."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import find_objects

from custom.metrics.mask_scores import dice_score, surface_dice


class MaskScore(NamedTuple):
    """The scores of one label of one case, one row of a table.

    ``dsc`` and ``nsd`` are 0 to 1, and NaN if the label is in neither file. ``hd95`` is the 95th percentile of the
    distances from the border of one mask to that of the other, the larger of both directions, in mm, or in pixels
    without a spacing; NaN unless the label is in both files. ``unit`` is the unit of the volumes: mL, for a picture
    mm2; without a spacing voxels or pixels. ``name`` is empty if no file names the label.
    """

    case: str
    label: int
    name: str
    dsc: float
    nsd: float
    hd95: float
    volume_pred: float
    volume_truth: float
    unit: str


def score_labels(
    pred: np.ndarray,
    truth: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    names: Mapping[int, str] | None = None,
    tolerance: float = 2.0,
    case: str = "",
) -> list[MaskScore]:
    """Score every label value that occurs in one of two label maps or has a name, in ascending order.

    Args:
        pred: HxW or DxHxW integers, 0 is background.
        truth: of the same shape.
        spacing: mm along the axes, (y, x) or (z, y, x); None if unknown.
        names: label -> name.
        tolerance: tolerance of the NSD: mm for a volume with a spacing, else pixels.
        case: name of the case.
    """
    flat, step, names = pred.ndim == 2, spacing or (1.0,) * pred.ndim, names or {}
    unit = ("pixels" if flat else "voxels") if spacing is None else "mm2" if flat else "mL"
    size = math.prod(step) / (1000 if unit == "mL" else 1)
    scores = []
    for value in sorted({*np.unique(pred).tolist(), *np.unique(truth).tolist(), *names} - {0}):
        masks = pred == value, truth == value
        volumes = [size * int(mask.sum()) for mask in masks]
        scores.append(MaskScore(case, value, names.get(value, ""), *_compare(*masks, step, tolerance), *volumes, unit))
    return scores


def with_absent(scores: Sequence[MaskScore], cases: Iterable[str]) -> list[MaskScore]:
    """Return a row for every case and every label of any case, with NaN where a case does not have the label."""
    found = {(row.case, row.label): row for row in scores}
    names = dict(sorted((row.label, row.name) for row in scores))
    nothing = (*(math.nan,) * 3, 0.0, 0.0, "")
    absent = {(case, label): MaskScore(case, label, name, *nothing) for case in cases for label, name in names.items()}
    return [found.get(key, row) for key, row in absent.items()]


def _compare(pred: np.ndarray, truth: np.ndarray, step: Sequence[float], tolerance: float) -> tuple[float, ...]:
    """Return DSC, NSD and HD95 of two bool masks HxW or DxHxW."""
    boxes = find_objects((pred | truth).view(np.uint8))
    if not boxes:
        return math.nan, math.nan, math.nan
    pred, truth = (np.pad(mask[boxes[0]], 1)[None] for mask in (pred, truth))  # outside is background
    spacing = step if len(step) == 3 else None  # the tolerance of a picture is in pixels, as in an evaluation
    dsc, nsd = dice_score(pred, truth)[0], surface_dice(pred, truth, tolerance=tolerance, spacing=spacing)[0]
    hd95 = math.nan
    if pred.any() and truth.any():
        options = {"include_background": True, "percentile": 95, "spacing": list(step)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI warns about one of its own calls
            hd95 = float(compute_hausdorff_distance(pred[None], truth[None], **options))
    return float(dsc), float(nsd), hd95
