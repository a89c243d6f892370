import json

import numpy as np
import pytest

from custom.data.prepared import load_dataset, open_array
from custom.errors import InputError
from custom.files import write_whole
from data_prep import pipeline
from data_prep.intensity import WINDOWS
from data_prep.readers import ManifestReader
from data_prep.readers.demo import DemoReader
from data_prep.writer import Options, prepare_case

OPTIONS = Options(window=WINDOWS["soft_tissue"], components=True, min_size=16)
GREY = np.full((32, 48), 90, np.uint8)


def prepare(root, out, workers=1, **changes):
    options = Options(**(vars(OPTIONS) | changes))
    return pipeline.prepare(ManifestReader(root), out, options=options, workers=workers, progress=False)


def two_squares():
    label = np.zeros((32, 48), np.uint8)
    label[2:8, 2:8], label[20:30, 30:40], label[15, 15] = 1, 1, 1
    return label


def test_prepared_form(manifest, tmp_path):
    root, add = manifest
    add("b", np.stack([GREY] * 3, -1), two_squares(), split="val")
    add("a", np.dstack([GREY, GREY, GREY + 1]), two_squares(), license="CC0")
    report = prepare(root, tmp_path / "out")
    assert not report.skipped and not report.left_out
    raw = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (raw["format"], raw["version"], raw["name"], raw["modalities"]) == (
        "mcp-medsam-prepared",
        1,
        "source",
        ["US"],
    )
    assert raw["training"] == [
        {
            "case": "US_Set_a",
            "modality": "US",
            "dataset": "Set",
            "dimension": 2,
            "image": "arrays/US_Set_a.image.npy",
            "label": "arrays/US_Set_a.label.npy",
            "shape": [1, 32, 48],
            "channels": 3,
            "spacing": None,
            "labels": {"1": "tumor", "2": "tumor"},
            "slices": [[0, [1, 2]]],
            "license": "CC0",
        }
    ]
    assert raw["validation"][0]["channels"] == 1
    record = load_dataset(tmp_path / "out").training[0]
    label = open_array(record.label)
    assert label.dtype == np.uint8 and np.bincount(label.ravel()).tolist() == [32 * 48 - 136, 36, 100]
    assert open_array(record.image).shape == (1, 32, 48, 3)
    assert not list((tmp_path / "out").rglob("*.partial"))


@pytest.mark.parametrize(
    ("changes", "labels", "masks"),
    [
        ({"components": False}, {"1": "t"}, 1),
        ({"min_size": 1}, {"1": "t"}, 3),
        ({"min_size": 50}, {"1": "t"}, 1),
        ({}, {"*": "t"}, 1),
    ],
)
def test_options(manifest, tmp_path, changes, labels, masks):
    root, add = manifest
    add("a", GREY, two_squares(), labels=labels)
    report = prepare(root, tmp_path / "out", **changes)
    assert len(report.training[0]["labels"]) == masks


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_cases_do_not_stop_the_others(manifest, tmp_path, square, workers):
    root, add = manifest
    add("good", GREY, square)
    add("empty", GREY, square * 0)
    add("size", GREY, square[:20])
    add("corrupt", None, square)
    (root / "US" / "corrupt.image.png").write_bytes(b"\x89PNG broken")
    add("line", None, None, raw="{")
    add("modality", GREY, square, modality="SPECT")
    add("small", GREY, square // 1 * (np.indices(square.shape)[0] < 5))
    add("last", GREY, square)
    report = prepare(root, tmp_path / "out", workers)
    assert [r["case"] for r in report.training] == ["US_Set_good", "US_Set_last"]
    assert len(report.left_out) == 1 and "small.label.png" in report.left_out[0]
    for line, part in zip(
        report.skipped,
        [
            "modality: found 'SPECT'",
            "label: found no foreground",
            "label: found shape (1, 20, 48); allowed: the image's (1, 32, 48)",
            "corrupt.image.png: file",
            "manifest.jsonl:5: line",
        ],
        strict=True,
    ):
        assert part in line and "\n" not in line


def test_nothing_usable_writes_no_index(manifest, tmp_path, square):
    root, add = manifest
    add("empty", GREY, square * 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.json").write_text("{}")
    report = prepare(root, tmp_path / "out")
    assert len(report.skipped) == 1 and not report.training
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_duplicate_names(manifest, tmp_path, square):
    root, add = manifest
    add("a b", GREY, square)
    add("a_b", GREY, square)
    with pytest.raises(InputError, match="2 cases named 'US_Set_a_b'"):
        prepare(root, tmp_path / "out")


def test_out_is_a_file(manifest, tmp_path, square):
    root, add = manifest
    add("a", GREY, square)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out"):
        prepare(root, tmp_path / "out")


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"before")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_volumes_are_never_split(tmp_path):
    """The two ventricles of the MR phantom share an id and stay one mask."""
    (tmp_path / "arrays").mkdir()
    reader = DemoReader()
    source = next(s for s in reader.sources() if s.name.startswith("MR"))
    outcome = prepare_case(source, reader, tmp_path, OPTIONS)
    assert outcome.record["dimension"] == 3 and outcome.record["spacing"] == [6.0, 1.8, 1.8]
    assert list(outcome.record["labels"].values()) == ["ventricles", "enhancing tumor", "tumor core"]
    assert outcome.size == sum(p.stat().st_size for p in (tmp_path / "arrays").iterdir())
