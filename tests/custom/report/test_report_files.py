import csv
import subprocess
import sys

import pytest
from skimage import io

COMMAND = [sys.executable, "-m", "custom.report"]


def call(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def runs(write_cases, tmp_path):
    cases = [(f"c{i}", "CT" if i < 8 else "US", 1) for i in range(12)]
    for name, shift in (("2024", 0), ("b", 5)):
        write_cases(tmp_path / name, [(*case, 50 + i + shift, 40 + i % 5) for i, case in enumerate(cases)])
    return tmp_path


def test_files(runs):
    done = call(runs / "2024", f"other={runs / 'b'}", "--reference", "2024", "--out", runs / "out")
    assert done.returncode == 0, done.stderr
    text = (runs / "out" / "report.md").read_text()
    assert text in done.stdout
    lines = text.splitlines()
    assert lines[2] == "| 2024 | 1 | 56.50 ± 3.00 | 41.81 ± 0.19 |"
    assert lines[3] == "| other | 1 | 61.50 ± 3.00 † | 41.81 ± 0.19 |"
    assert "| CT | 8 | 53.50 ± 2.29 | 58.50 ± 2.29 |" in lines
    assert "† differs from 2024 (p < 0.05" in text and "pairs without a difference left out" in text
    with (runs / "out" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["modality"]) for row in rows[:3]] == [
        ("2024", "CT"),
        ("2024", "US"),
        ("2024", "mean over modalities"),
    ]
    assert float(rows[-1]["dsc"]) == 61.5 and float(rows[-1]["dsc_p"]) < 0.05 and float(rows[-1]["nsd_p"]) == 1
    assert rows[0]["dsc_p"] == rows[0]["dsc_seed_std"] == ""
    picture = io.imread(runs / "out" / "report.png")
    assert picture.ndim == 3 and picture.min() < 128 < picture.max()


def test_reference_given_as_a_folder_joins_the_runs(runs):
    done = call(runs / "b", "--reference", runs / "2024", "--out", runs / "out")
    assert done.returncode == 0, done.stderr
    assert "| b | 1 | 61.50 ± 3.00 † |" in done.stdout and "| 2024 | 1 | 56.50 ± 3.00 |" in done.stdout


def test_bad_input_is_one_line(runs):
    done = call(runs / "nothing", "--out", runs / "out")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {runs / 'nothing'}: run: found no folder")
    assert done.stderr.count("\n") == 1 and not (runs / "out").exists()
