"""Reliability plot of the predicted IoU, and the modality classifier's confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from custom.modalities import MODALITIES


class ReliabilityBin(Protocol):
    """One bin: its ends, its number of masks, and the means of their predicted and true IoU."""

    low: float
    high: float
    masks: int
    predicted: float
    true: float


def draw(bins: Sequence[ReliabilityBin], counts: np.ndarray, overall: Mapping[str, float]) -> bytes:
    """Return a PNG.

    Args:
        bins: bins with at least one mask.
        counts: masks by true (rows) and predicted (columns) modality, MxM; all zero where there is no classifier.
        overall: the scores of all masks, for the titles.
    """
    figure = Figure(figsize=(11, 5.5), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _reliability(left, bins, overall)
    _confusion(right, counts, overall["modality_accuracy"])
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _reliability(panel: Axes, bins: Sequence[ReliabilityBin], overall: Mapping[str, float]) -> None:
    total = sum(b.masks for b in bins)
    shares = [b.masks / total for b in bins]
    panel.bar([b.low for b in bins], shares, width=[b.high - b.low for b in bins], align="edge", color="0.88")
    panel.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle="--")
    panel.plot([b.predicted for b in bins], [b.true for b in bins], marker="o", markersize=5)
    panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panel.set(xlabel="predicted IoU", ylabel="true IoU (bars: share of masks)")
    mean, expected = overall["absolute_error"], overall["calibration_error"]
    panel.set_title(f"mean absolute error {mean:.3f}, calibration error {expected:.3f}", fontsize=10)


def _confusion(panel: Axes, counts: np.ndarray, accuracy: float) -> None:
    total = counts.sum(axis=1, keepdims=True)
    panel.imshow(counts / np.maximum(total, 1), cmap="Blues", vmin=0, vmax=1)
    places = range(len(MODALITIES))
    panel.set_xticks(places, MODALITIES, rotation=90, fontsize=8)
    panel.set_yticks(places, MODALITIES, fontsize=8)
    panel.set(xlabel="predicted", ylabel="true")
    for row, column in np.argwhere(counts):
        dark = counts[row, column] > total[row, 0] / 2
        colour = "white" if dark else "black"
        panel.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=colour)
    title = "no modality classifier" if math.isnan(accuracy) else f"modality accuracy {accuracy:.3f}"
    panel.set_title(title, fontsize=10)
