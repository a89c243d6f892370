import json
import shutil

import numpy as np
import pytest

from data_prep.check import check
from data_prep.pipeline import prepare
from data_prep.readers import READERS


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    prepare(READERS["demo"](), root, progress=False)
    index = json.loads((root / "dataset.json").read_text())
    index["modalities"] = ["CT", "US"]
    for part in ("training", "validation"):
        index[part] = [next(c for c in index[part] if c["modality"] == m) for m in index["modalities"]]
    named = {case[kind] for part in ("training", "validation") for case in index[part] for kind in ("image", "label")}
    for path in (root / "arrays").iterdir():
        if f"arrays/{path.name}" not in named:
            path.unlink()
    (root / "dataset.json").write_text(json.dumps(index))
    return root


@pytest.fixture
def damaged(good, tmp_path):
    """Return a copy of the good set, its index as JSON, and a function that writes the index."""
    root = tmp_path / "set"
    shutil.copytree(good, root)
    index = json.loads((root / "dataset.json").read_text())
    return root, index, lambda: (root / "dataset.json").write_text(json.dumps(index))


def first(index, modality="CT"):
    return next(c for c in index["training"] if c["modality"] == modality)


def problems(root):
    report = check(root, workers=1, progress=False)
    assert all("\n" not in line and ": found " in line and "; allowed: " in line for line in report.problems)
    return report.problems


def test_good_set(good):
    reports = [check(good, workers=workers, progress=False) for workers in (1, 2, None)]
    assert not any(report.problems or report.warnings for report in reports)
    assert len({report.table() for report in reports}) == 1


def test_table(damaged):
    root, index, write = damaged
    case = first(index)
    case["spacing"] = [5.0, 0.7, 0.8]
    index["training"], index["validation"], index["modalities"] = [case], [], ["CT"]
    write()
    head, ct, whole = check(root, workers=1, progress=False).table().splitlines()
    masks = sum(len(ids) for _, ids in case["slices"])
    flat, deep = int(case["dimension"] == 2), int(case["dimension"] == 3)
    numbers = [1, 0, flat, deep, len(case["slices"]), masks, case["shape"][1], "x", case["shape"][2], 1]
    assert ct.split() == ["CT", *map(str, numbers)] and whole.split() == ["all", *map(str, numbers)]
    assert len(head) == len(ct) == len(whole)


def edit(**fields):
    def change(root, index):
        first(index).update(fields)

    return change


def arrays(kind, make):
    """Replace an array of the first CT case by ``make(array)``."""

    def change(root, index):
        path = root / first(index)[kind]
        np.save(path, make(np.load(path)))

    return change


def wider(root, index):
    first(index)["shape"][2] += 1


def hide_slice(root, index):
    first(index)["slices"].pop()


def other_id(root, index):
    first(index)["slices"][0][1].append(200)


def no_name(root, index):
    first(index)["labels"]["1"] = " "


def both_splits(root, index):
    for part in ("training", "validation"):
        case = next(c for c in index[part] if c["modality"] == "US")
        case |= {"patient": "p7", "dataset": "Set"}


def same_image(root, index):
    index["validation"][0]["digest"] = index["training"][0]["digest"]


def truncate(root, index):
    path = root / first(index)["image"]
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (wider, ["image.npy: shape: found", "label.npy: shape: found"]),
        (edit(spacing=[1, 0, 1]), ["spacing: found [1.0, 0.0, 1.0]; allowed: three positive numbers, or null"]),
        (edit(spacing=[1, float("nan"), 1]), [".spacing: found [1.0, nan, 1.0]"]),
        (edit(dimension=4), [".dimension: found 4 with"]),
        (edit(channels=2), [".channels: found 2; allowed: 1, 3", "image.npy: shape: found"]),
        (edit(digest="0" * 16), ["image.npy: digest: found"]),
        (arrays("image", lambda a: a.astype(np.int16)), ["image.npy: dtype: found int16; allowed: uint8"]),
        (arrays("label", lambda a: a.astype(np.int32)), ["label.npy: dtype: found int32; allowed: uint8, uint16"]),
        (arrays("label", lambda a: a[:, 1:]), ["label.npy: shape: found"]),
        (arrays("label", np.zeros_like), ["label.npy: label: found no foreground"]),
        (arrays("image", lambda a: 255 - a), ["image.npy: digest: found"]),
        (truncate, ["image.npy: array: found"]),
        (hide_slice, [".slices: found no entry for slices ["]),
        (other_id, ["no pixel of ids [200]; allowed: the ids listed"]),
        (no_name, [".labels: found no name for ids [1]"]),
        (both_splits, ["split: found patient p7 of Set: "]),
        (same_image, ["split: found one image: ", "image.npy: digest: found"]),
        (lambda root, index: index.update(modalities=["CT"]), ["dataset.json: modalities: found ['CT']"]),
        (
            lambda root, index: (root / "arrays" / "x.npy").touch(),
            ["x.npy: file: found one that is not in dataset.json"],
        ),
    ],
)
def test_damage_is_named(damaged, change, expected):
    root, index, write = damaged
    change(root, index)
    write()
    found = problems(root)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True)), found


def test_labels_and_array_disagree(damaged):
    root, index, write = damaged
    case = first(index)
    case["labels"] = {str(int(i) + 1): name for i, name in case["labels"].items()}
    write()
    assert [line.partition("found ")[2].partition(" ids")[0] for line in problems(root)] == ["no name for", "names of"]


@pytest.mark.parametrize("slices", [[[1, [1]], [0, [1]]], [[-1, [1]]], [[99999, [1]]]], ids=str)
def test_order_of_the_index(damaged, slices):
    root, index, write = damaged
    first(index)["slices"] = slices
    write()
    assert any(".slices: found [" in line and "ascending z in 0 to" in line for line in problems(root))


@pytest.mark.parametrize("ids", [[], [2, 1], [1, 1], [0]], ids=str)
def test_ids_of_a_slice(damaged, ids):
    root, index, write = damaged
    first(index)["slices"][0][1] = ids
    write()
    assert any("one or more ascending ids above 0" in line for line in problems(root))


def test_a_limit_on_masks_is_a_warning(damaged):
    root, index, write = damaged
    entry = next(entry for entry in first(index)["slices"] if len(entry[1]) > 1)
    left_out = len(entry[1]) - 1
    del entry[1][1:]
    write()
    report = check(root, workers=1, progress=False)
    assert not report.problems and len(report.warnings) == 1
    assert f"slices: found {left_out} masks in 1 cases are not listed" in report.warnings[0]


def test_constant_image_is_a_warning(damaged):
    root, index, write = damaged
    arrays("image", lambda a: np.full_like(a, 9))(root, index)
    del first(index)["digest"]  # as in a set of an earlier version
    write()
    report = check(root, workers=1, progress=False)
    assert not report.problems and len(report.warnings) == 1 and "values: found only 9" in report.warnings[0]


def test_every_missing_array_is_named(damaged):
    root, index, _ = damaged
    gone = [index["training"][0]["image"], index["validation"][-1]["label"]]
    for file in gone:
        (root / file).unlink()
    found = problems(root)
    assert len(found) == 2 and all(file in line for file, line in zip(gone, found, strict=True))


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_no_index(tmp_path, text):
    if text:
        (tmp_path / "dataset.json").write_text(text)
    report = check(tmp_path)
    assert len(report.problems) == 1 and "dataset.json" in report.problems[0] and "all" in report.table()
