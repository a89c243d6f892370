"""How far a network's own word can be trusted: ``python -m custom.report.calibration EVAL --out DIR``.

EVAL is the output folder of an evaluation with ``--mask_report True``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr

from custom.atomic_write import write_whole
from custom.command_line import run
from custom.modalities import MODALITIES
from custom.report.calibration_figure import draw
from custom.report.masks import ALL, Masks, read_masks
from custom.report.rows import write_rows

BINS = 10
MEAN = "mean"


@dataclass(frozen=True)
class Bin:
    """The masks whose predicted IoU is from ``low`` (included) to ``high`` (included in the last bin alone)."""

    low: float
    high: float
    masks: int
    predicted: float
    true: float


def reliability(masks: Masks) -> list[Bin]:
    """Sort the masks into ten equal bins of predicted IoU; bins without masks are left out."""
    place = np.minimum((masks.predicted * BINS).astype(int), BINS - 1)
    found = []
    for k in range(BINS):
        inside = place == k
        if inside.any():
            means = masks.predicted[inside].mean(), masks.true[inside].mean()
            found.append(Bin(k / BINS, (k + 1) / BINS, int(inside.sum()), *map(float, means)))
    return found


def calibration_error(masks: Masks) -> float:
    """Return the expected calibration error: the mean distance of a bin from the diagonal, by its masks."""
    return sum(b.masks * abs(b.predicted - b.true) for b in reliability(masks)) / len(masks)


def scores(masks: Masks) -> dict[str, float]:
    """Return means, errors and correlation of the IoU, and the classifier's accuracy; NaN where there is none."""
    varied = len(masks) > 1 and np.ptp(masks.predicted) > 0 and np.ptp(masks.true) > 0
    has_classifier = (masks.classified >= 0).any()
    return {
        "predicted_iou": float(masks.predicted.mean()),
        "true_iou": float(masks.true.mean()),
        "absolute_error": float(np.abs(masks.predicted - masks.true).mean()),
        "calibration_error": calibration_error(masks),
        "correlation": float(pearsonr(masks.predicted, masks.true).statistic) if varied else math.nan,
        "modality_accuracy": float((masks.classified == masks.modality).mean()) if has_classifier else math.nan,
    }


def table(masks: Masks) -> dict[str, tuple[int, dict[str, float]]]:
    """Return number of masks and scores by modality, then their mean over modalities, then those of all masks."""
    rows = {name: (len(part), scores(part)) for name, part in masks.by_modality().items()}
    columns = {name: [row[name] for _, row in rows.values()] for name in scores(masks)}
    means = {name: _mean(values) for name, values in columns.items()}
    return {**rows, MEAN: (len(masks), means), ALL: (len(masks), scores(masks))}


def confusion(masks: Masks) -> np.ndarray:
    """Count the masks of each true modality by the one the classifier found: MxM."""
    counts = np.zeros((len(MODALITIES), len(MODALITIES)), int)
    known = masks.classified >= 0
    np.add.at(counts, (masks.modality[known], masks.classified[known]), 1)
    return counts


def calibration(folder: str, out: str = "calibration") -> None:
    """Write ``calibration.csv``, ``reliability.csv``, ``confusion.csv`` and ``calibration.png``; show the table.

    Args:
        folder: output folder of an evaluation with ``--mask_report True``.
        out: folder for the four files.

    Raises:
        InputError: as ``read_masks``.
    """
    masks, place = read_masks(Path(str(folder))), Path(str(out))
    rows, counts, bins = table(masks), confusion(masks), reliability(masks)
    names = list(rows[ALL][1])
    lines = [[name, count, *(_text(row[key]) for key in names)] for name, (count, row) in rows.items()]
    write_rows(place / "calibration.csv", ["modality", "masks", *names], lines)
    in_bins = [[b.low, b.high, b.masks, _text(b.predicted), _text(b.true)] for b in bins]
    write_rows(place / "reliability.csv", ["from", "to", "masks", "predicted_iou", "true_iou"], in_bins)
    confused = [[name, *row] for name, row in zip(MODALITIES, counts, strict=True)]
    write_rows(place / "confusion.csv", ["modality", *MODALITIES], confused)
    image = draw(bins, counts, rows[ALL][1])
    write_whole(place / "calibration.png", lambda file: file.write(image))
    print(f"{'modality':<12}{'masks':>8}" + "".join(f"{name.replace('_', ' '):>19}" for name in names))
    for name, count, *values in lines:
        print(f"{name:<12}{count:>8}" + "".join(f"{value or '-':>19}" for value in values))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def main() -> None:
    """Run the command line."""
    run(calibration, name="python -m custom.report.calibration")


if __name__ == "__main__":
    main()
