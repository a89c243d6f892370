import json
import time

import numpy as np
import pytest

from custom.data.prepared import load_dataset, open_array, read_slice
from custom.errors import InputError


def entry(name, modality="CT", **fields):
    return {
        "case": name,
        "modality": modality,
        "dataset": "Set",
        "dimension": 3,
        "image": f"arrays/{name}.image.npy",
        "label": f"arrays/{name}.label.npy",
        "shape": [2, 4, 5],
        "channels": 1,
        "spacing": [5.0, 0.7, 0.8],
        "labels": {"1": "liver", "2": "spleen"},
        "slices": [[0, [1]], [1, [1, 2]]],
    } | fields


def write(root, training, validation=()):
    (root / "arrays").mkdir(parents=True, exist_ok=True)
    for case in (*training, *validation):
        for kind in ("image", "label"):
            if isinstance(case, dict) and kind in case:
                (root / case[kind]).touch()
    index = {"format": "mcp-medsam-prepared", "version": 1, "name": "x", "modalities": []}
    index |= {"training": list(training), "validation": list(validation)}
    (root / "dataset.json").write_text(json.dumps(index))


def test_records(tmp_path, monkeypatch):
    write(tmp_path / "d", [entry("a", patient="7")], [entry("b", "PET"), entry("c", "MR", spacing=None)])
    monkeypatch.chdir(tmp_path)
    prepared = load_dataset("d")
    assert prepared.root == tmp_path / "d" and prepared.modalities == ("CT", "MR", "PET")
    (a,), (b, c) = prepared.training, prepared.validation
    assert a.image == tmp_path / "d" / "arrays" / "a.image.npy" and a.image.is_absolute()
    assert (a.shape, a.spacing, a.patient, a.license) == ((2, 4, 5), (5.0, 0.7, 0.8), "7", None)
    assert a.labels == {1: "liver", 2: "spleen"} and a.slices == ((0, (1,)), (1, (1, 2)))
    assert b.modality == "PET" and c.spacing is None


def test_missing_set_names_the_command(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="`python -m data_prep demo` makes one"):
            load_dataset(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\ufffe", ""])
def test_no_json(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("head", "match"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version: found 2; allowed: 1"),
        ({"training": None}, "training"),
        ({"training": [3]}, r"training\[0\]"),
        ({"validation": {}}, "validation"),
    ],
)
def test_bad_head(tmp_path, head, match):
    write(tmp_path, [])
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | head))
    with pytest.raises(InputError, match=match):
        load_dataset(tmp_path)


@pytest.mark.parametrize("field", [key for key in entry("a") if key not in ("patient", "license", "source")])
def test_missing_field(tmp_path, field):
    case = entry("a")
    del case[field]
    write(tmp_path, [entry("z"), case])
    with pytest.raises(InputError, match=rf"training\[1\].*\.{field}: found nothing"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"modality": "SPECT"}, "modality: found 'SPECT'"),
        ({"modality": ["CT"]}, "modality"),
        ({"shape": [2, 3]}, "does not fit"),
        ({"spacing": 3}, "does not fit"),
        ({"labels": ["liver"]}, "does not fit"),
        ({"labels": {"x": "liver"}}, "does not fit"),
        ({"slices": [[0]]}, "does not fit"),
    ],
)
def test_bad_field(tmp_path, fields, match):
    write(tmp_path, [entry("a", **fields)])
    with pytest.raises(InputError, match=match):
        load_dataset(tmp_path)


def test_missing_array(tmp_path):
    write(tmp_path, [entry("a")])
    (tmp_path / "arrays" / "a.label.npy").unlink()
    with pytest.raises(InputError, match=r"training\[0\] \(a\)\.label: found no file"):
        load_dataset(tmp_path)


def test_duplicate_names(tmp_path):
    write(tmp_path, [entry("a")], [entry("a")])
    with pytest.raises(InputError, match="a second case with that name"):
        load_dataset(tmp_path)


def test_many_cases_are_quick(tmp_path):
    write(tmp_path, [entry(f"c{n}") for n in range(1500)])
    start = time.perf_counter()
    assert len(load_dataset(tmp_path).training) == 1500
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 5, 7), np.uint8), ((9, 300, 41), np.uint16), ((4, 64, 64, 3), np.uint8)],  # below, across and at page ends
)
def test_read_slice(tmp_path, shape, dtype):
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    for z in range(len(array)):
        found = read_slice(tmp_path / "a.npy", z)
        assert found.dtype == dtype and found.flags.writeable and type(found) is np.ndarray
        np.testing.assert_array_equal(found, array[z])


def test_open_array(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", array)
    opened = open_array(tmp_path / "a.npy")
    assert isinstance(opened, np.memmap) and not opened.flags.writeable
    np.testing.assert_array_equal(opened, array)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "truncated", "objects"])
def test_bad_array(tmp_path, kind):
    path = tmp_path / "a.npy"
    if kind == "text":
        path.write_text("no array")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        np.save(path, np.zeros((9, 9)))
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "objects":
        np.save(path, np.array([{}], object))
    with pytest.raises(InputError, match=r"a\.npy: array") as error:
        open_array(path)
    assert "\n" not in str(error.value)


def test_arrays_outside_of_the_set(tmp_path):
    for place in ("../a.npy", str(tmp_path / "a.npy")):
        write(tmp_path / "d", [entry("a", image=place)])
        with pytest.raises(InputError, match=r"\(a\)\.image: found .*a file inside the folder of the set"):
            load_dataset(tmp_path / "d")


@pytest.mark.parametrize(
    "changes",
    [{"dimension": float("inf")}, {"slices": [[2**31, [1]]]}, {"slices": [[0, [10**400]]]}, {"slices": [[0, 1]]}],
)
def test_numbers_that_are_none(tmp_path, changes):
    write(tmp_path, [entry("a", **changes)])
    with pytest.raises(InputError, match=r"training\[0\] \(a\): found a value that does not fit"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("content", [b"PK\x05\x06" + bytes(18), b"\x93NUMPY\x01\0\x10\0{'descr': '|u1', ", b""])
def test_what_is_no_array(tmp_path, content):
    """Also an archive, which NumPy would open."""
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: array: found"):
        open_array(tmp_path / "a.npy")
