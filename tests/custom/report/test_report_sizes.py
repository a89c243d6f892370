import csv

import pytest

from custom.errors import InputError
from custom.report.masks import read_masks
from custom.report.sizes import EDGES, by_size, sizes

# modality, extent, predicted IoU, true IoU, predicted modality
ROWS = [
    ("CT", 0.01, 0.5, 0.0, "CT"),  # Dice 0
    ("CT", 0.02, 0.5, 1.0, "CT"),  # Dice 1; the upper end belongs to the class
    ("US", 0.3, 0.5, 1 / 3, "US"),  # Dice 1/2, not below one half
    ("US", 1.0, 0.5, 0.6, "US"),  # Dice 3/4
]


def test_classes(write_masks):
    rows = by_size(read_masks(write_masks(ROWS)))
    assert rows == [pytest.approx(row) for row in [(0, 0.02, 2, 50, 50), (0.16, 0.32, 1, 50, 0), (0.32, 1, 1, 75, 0)]]


def test_every_mask_is_in_one_class(write_masks):
    rows = [("CT", (k + 1) / 200, 0.5, 0.5, "CT") for k in range(200)]
    found = by_size(read_masks(write_masks(rows)))
    assert sum(count for _, _, count, *_ in found) == 200 and len(found) == len(EDGES) - 1


def test_file(write_masks, tmp_path, capsys):
    first, second = write_masks(ROWS), write_masks(ROWS[:1], name="other")
    sizes(str(first), f"theirs={second}", out=str(tmp_path / "out"))
    with (tmp_path / "out" / "sizes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["modality"], row["to"], row["masks"], row["dsc"], row["below_50"]) for row in rows] == [
        ("evaluated", "CT", "0.02", "2", "50.00", "50.00"),
        ("evaluated", "US", "0.32", "1", "50.00", "0.00"),
        ("evaluated", "US", "1.0", "1", "75.00", "0.00"),
        ("evaluated", "all", "0.02", "2", "50.00", "50.00"),
        ("evaluated", "all", "0.32", "1", "50.00", "0.00"),
        ("evaluated", "all", "1.0", "1", "75.00", "0.00"),
        ("theirs", "CT", "0.02", "1", "0.00", "100.00"),
        ("theirs", "all", "0.02", "1", "0.00", "100.00"),
    ]
    assert "16% to 32%" in capsys.readouterr().out


@pytest.mark.parametrize(("runs", "message"), [((), "found none"), (("a=E", "a=E"), "'a' twice"), (("gone",), "gone")])
def test_wrong_runs(write_masks, tmp_path, runs, message):
    folder = str(write_masks(ROWS))
    with pytest.raises(InputError, match=message):
        sizes(*(run.replace("E", folder) for run in runs), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
