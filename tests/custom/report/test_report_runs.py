import numpy as np
import pytest

from custom.errors import InputError
from custom.report import parse_run

ROWS = [("b", "CT", 2, 80, 70), ("a", "US", 1, 60.5, 50)]


@pytest.mark.parametrize("inside", ["", "eval"])
def test_one_folder(write_cases, tmp_path, inside):
    write_cases(tmp_path / "first" / inside, ROWS)
    run = parse_run(str(tmp_path / "first"))
    assert run.name == "first" and run.seeds == 1
    assert run.cases == (("a", "US", 1), ("b", "CT", 2))
    np.testing.assert_array_equal(run.scores["dsc"], [[60.5, 80]])
    np.testing.assert_array_equal(run.scores["nsd"], [[50, 70]])


def test_seeds(write_cases, tmp_path):
    for seed in (0, 2, 10):
        write_cases(tmp_path / "x" / f"seed_{seed}" / "eval", [("a", "US", 1, seed, 1)])
    np.testing.assert_array_equal(parse_run(f"{tmp_path}/x").scores["dsc"], [[0], [2], [10]])
    named = parse_run(f"name={tmp_path}/x/seed_10,{tmp_path}/x/seed_0")
    assert named.name == "name"
    np.testing.assert_array_equal(named.scores["dsc"], [[10], [0]])


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (ROWS, "case,modality,n_masks,dsc,iou", "columns: found no nsd;"),
        ([("a", "US", 1, "nan", 1)], None, "line 2: found {'dsc': nan"),
        ([("a", "US", 1, "", 1)], None, "line 2: found could not convert"),
        ([("a", "US", 1, 1)], None, "line 2: found float"),
        ([("a", "US", 1, 1, 1), ("a", "CT", 1, 1, 1)], None, "line 3: found 'a' again"),
        ([("a", "Sonar", 1, 1, 1)], None, "line 2: modality: found 'Sonar'"),
        ([], None, "cases: found none"),
    ],
)
def test_bad_files(write_cases, tmp_path, rows, columns, expected):
    write_cases(tmp_path, rows, *([columns] if columns else []))
    with pytest.raises(InputError) as error:
        parse_run(str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path / 'cases.csv'}") and expected in str(error.value)


def test_no_files(write_cases, tmp_path):
    with pytest.raises(InputError, match="found no folder"):
        parse_run(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"found no cases\.csv; allowed"):
        parse_run(str(tmp_path))
    write_cases(tmp_path / "seed_0", ROWS)
    (tmp_path / "seed_1").mkdir()
    with pytest.raises(InputError, match=r"found no cases\.csv in seed_1;"):
        parse_run(str(tmp_path))


def test_seeds_with_other_cases(write_cases, tmp_path):
    write_cases(tmp_path / "seed_0", [("a", "US", 1, 1, 1), ("b", "US", 1, 1, 1), ("c", "US", 1, 1, 1)])
    write_cases(tmp_path / "seed_1", [("a", "US", 2, 1, 1), ("c", "US", 1, 1, 1), ("d", "CT", 1, 1, 1)])
    with pytest.raises(InputError) as error:
        parse_run(str(tmp_path))
    text = "found 3 that differ: a (US, 2 masks instead of US, 1 masks), b (missing), d (not expected); allowed"
    assert text in str(error.value)
