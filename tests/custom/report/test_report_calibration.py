import csv
import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from custom.modalities import MODALITIES
from custom.report.calibration import calibration, confusion, reliability, scores, table
from custom.report.masks import read_masks

# modality, predicted IoU, true IoU, predicted modality
MASKS = [
    ("CT", 0.95, 0.9, "CT"),
    ("CT", 1.2, 0.8, "CT"),  # shown as 1
    ("CT", 0.31, 0.5, "US"),
    ("CT", 0.39, 0.6, "CT"),
    ("US", 0.65, 0.65, "CT"),
    ("US", -0.1, 0.2, "US"),  # shown as 0
]


@pytest.fixture
def evaluated(write_masks):
    """Return a function that writes ``masks.csv``."""
    return lambda masks: write_masks([(modality, 0.5, *row) for modality, *row in masks])


def test_bins(evaluated):
    found = [(b.low, b.high, b.masks, b.predicted, b.true) for b in reliability(read_masks(evaluated(MASKS)))]
    expected = [(0, 0.1, 1, 0, 0.2), (0.3, 0.4, 2, 0.35, 0.55), (0.6, 0.7, 1, 0.65, 0.65), (0.9, 1, 2, 0.975, 0.85)]
    assert [pytest.approx(row) for row in expected] == found


def test_scores(evaluated):
    found = scores(read_masks(evaluated(MASKS)))
    predicted, true = [0.95, 1, 0.31, 0.39, 0.65, 0], [0.9, 0.8, 0.5, 0.6, 0.65, 0.2]
    assert found == pytest.approx(
        {
            "predicted_iou": np.mean(predicted),
            "true_iou": np.mean(true),
            "absolute_error": (0.05 + 0.2 + 0.19 + 0.21 + 0 + 0.2) / 6,
            "calibration_error": (1 * 0.2 + 2 * 0.2 + 1 * 0 + 2 * 0.125) / 6,
            "correlation": pearsonr(predicted, true).statistic,
            "modality_accuracy": 4 / 6,
        }
    )


def test_perfect_prediction(evaluated):
    found = scores(read_masks(evaluated([("MR", v, v, "MR") for v in (0.1, 0.55, 1.0)])))
    assert found["absolute_error"] == found["calibration_error"] == 0
    assert found["correlation"] == pytest.approx(1) and found["modality_accuracy"] == 1


def test_table_by_modality(evaluated):
    rows = table(read_masks(evaluated(MASKS)))
    assert list(rows) == ["CT", "US", "mean", "all"] and [n for n, _ in rows.values()] == [4, 2, 6, 6]
    accuracies = [row["modality_accuracy"] for _, row in rows.values()]
    assert accuracies == pytest.approx([0.75, 0.5, 0.625, 4 / 6])


def test_confusion(evaluated):
    counts = confusion(read_masks(evaluated(MASKS)))
    ct, us = MODALITIES.index("CT"), MODALITIES.index("US")
    assert counts[ct, ct] == 3 and counts[ct, us] == counts[us, ct] == counts[us, us] == 1 and counts.sum() == 6


def test_without_a_classifier_or_variety(evaluated):
    found = scores(read_masks(evaluated([("CT", 0.5, 0.5, ""), ("CT", 0.5, 0.7, "")])))
    assert math.isnan(found["modality_accuracy"]) and math.isnan(found["correlation"])


def test_files(evaluated, tmp_path, capsys):
    calibration(str(evaluated(MASKS)), str(tmp_path / "out"))
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"calibration.csv", "reliability.csv", "confusion.csv", "calibration.png"}
    with (tmp_path / "out" / "calibration.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    assert last["modality"] == "all" and last["modality_accuracy"] == "0.6667"
    assert (tmp_path / "out" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("\n") == 5
