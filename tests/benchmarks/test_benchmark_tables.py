"""The tables of the benchmark."""

import csv

import pytest

from tests.benchmarks.inference import _fit_table, _ratio_table
from tests.benchmarks.tables import names, write_tables


def test_ratio_of_medians():
    times = {"2D": {"LiteMedSAM": [4.0, 2.0, 90.0], "f32": [1.0, 3.0, 0.5]}}
    assert _ratio_table(times) == (["case", "LiteMedSAM", "f32"], [["2D", "4.00", "1.00 (0.25)"]])


def test_straight_line():
    times = {str(n): {"f32": [0.5 + 0.25 * n]} for n in (1, 2, 4, 8)}
    header, ((name, *cells),) = _fit_table(times, "boxes")
    assert (header[0], name, cells[-3:]) == ("boxes", "f32", ["0.500", "0.250", "1.0000"])


def test_files(tmp_path):
    text = write_tables(tmp_path, "t", {"A": (["case", "s"], [["2D", "0.5"]]), "B": (["x"], [["1"]])})
    assert text == "A\n\n| case | s |\n| --- | --: |\n| 2D | 0.5 |\n\nB\n\n| x |\n| --- |\n| 1 |"
    with open(tmp_path / "t.csv", newline="") as file:
        assert list(csv.reader(file)) == [["A", "case", "s"], ["A", "2D", "0.5"], ["B", "x"], ["B", "1"]]


@pytest.mark.parametrize("given", ["a, b", ("a", "b"), ["a", "b"]])
def test_names(given):
    assert names(given) == ["a", "b"]
