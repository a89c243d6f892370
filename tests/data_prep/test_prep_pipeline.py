import json

import nibabel as nib
import numpy as np
import pytest

from custom.atomic_write import write_whole
from custom.data.prepared import load_dataset, open_array
from custom.errors import InputError
from custom.images.geometry import Geometry
from custom.images.image import Image
from data_prep import pipeline
from data_prep.readers.base import Case, Reader, Source, safe_name
from data_prep.readers.demo import DemoReader
from data_prep.readers.manifest import ManifestReader
from data_prep.writer import PrepareOptions, prepare_case

GREY = np.full((32, 48), 90, np.uint8)


def prepare(root, out, workers=1, **options):
    return pipeline.prepare(
        ManifestReader(root), out, options=PrepareOptions(**options), workers=workers, progress=False
    )


def two_squares():
    label = np.zeros((32, 48), np.uint8)
    label[2:8, 2:8], label[20:30, 30:40], label[15, 15] = 1, 1, 1
    return label


def test_prepared_form(manifest, tmp_path):
    root, add = manifest
    add("b", np.stack([GREY] * 3, -1), two_squares(), split="val")
    add("a", np.dstack([GREY, GREY, GREY + 1]), two_squares(), license="CC0")
    report = prepare(root, tmp_path / "out")
    assert not report.skipped and not report.left_out and not report.leakage
    raw = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (raw["format"], raw["version"], raw["name"], raw["modalities"]) == (
        "mcp-medsam-prepared",
        1,
        "source",
        ["US"],
    )
    (record,) = raw["training"]
    assert {len(record.pop(key)) for key in ("digest", "fingerprint")} == {16}
    assert record == {
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
    assert raw["validation"][0]["channels"] == 1
    loaded = load_dataset(tmp_path / "out").training[0]
    label = open_array(loaded.label)
    assert label.dtype == np.uint8 and np.bincount(label.ravel()).tolist() == [32 * 48 - 136, 36, 100]
    assert open_array(loaded.image).shape == (1, 32, 48, 3) and loaded.geometry is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["arrays", "dataset.json", "report.json"]


def test_geometry_of_a_volume(manifest, tmp_path):
    root, add = manifest
    affine = np.diag((2.0, -3.0, 5.0, 1.0))
    add("v", None, None, modality="MR", image="v.nii", label="l.nii")
    data = np.random.default_rng(0).integers(0, 2, (6, 7, 8)).astype(np.int16)
    for name in ("v.nii", "l.nii"):
        nib.save(nib.Nifti1Image(data, affine), root / "MR" / name)
    prepare(root, tmp_path / "out")
    (record,) = load_dataset(tmp_path / "out").training
    geometry = Geometry.from_json(record.geometry)
    assert record.spacing == geometry.spacing == (5.0, 3.0, 2.0)
    np.testing.assert_array_equal(geometry.restore(open_array(record.label)), data)


class Made(Reader):
    """One case, made in memory."""

    name = "made"

    def __init__(self, *, kind="volume", spacing=None, instance=False):
        self.kind, self.spacing, self.instance = kind, spacing, instance

    def sources(self):
        return [Source("one")]

    def load(self, source):
        label = np.zeros((2, 8, 16), np.uint8)
        label[:, :5, :5], label[0, 6:, 6:], label[1, :3, 14:] = 1, 1, 2
        return Case(
            name=source.name,
            modality="MR",
            dataset="Set",
            split="train",
            image=Image(path="i", format="array", array=label, kind=self.kind, spacing=self.spacing),
            label=label,
            label_file="l",
            names={"*": "object"},
            instance=self.instance,
        )


@pytest.mark.parametrize(
    ("components", "kind", "instance", "masks"),
    [
        ("auto", "picture", False, 3),
        ("auto", "volume", False, 2),
        (True, "picture", False, 3),
        (True, "volume", False, 3),
        (False, "picture", False, 2),
        (True, "picture", True, 2),
        (True, "volume", True, 2),
    ],
)
def test_components(tmp_path, components, kind, instance, masks):
    reader = Made(kind=kind, instance=instance)
    options = PrepareOptions(components=components, min_size=1)
    report = pipeline.prepare(reader, tmp_path / "out", options=options, progress=False)
    assert len(report.training[0]["labels"]) == masks


def test_largest_masks_of_a_slice(tmp_path):
    report = pipeline.prepare(Made(), tmp_path / "out", options=PrepareOptions(min_size=1, max_masks=1), progress=False)
    assert report.training[0]["slices"] == [[0, [1]], [1, [1]]]


@pytest.mark.parametrize("spacing", [(1.0, 0.0, 1.0), (1.0, float("nan"), 1.0), (1.0, float("inf"), 1.0)])
def test_spacing_is_checked(tmp_path, spacing):
    report = pipeline.prepare(Made(spacing=spacing), tmp_path / "out", progress=False)
    assert "i: spacing: found" in report.skipped[0]


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


@pytest.mark.parametrize(
    "values",
    [
        {"components": "maybe"},
        {"min_size": 0},
        {"min_size": 1.5},
        {"max_masks": 0},
        {"max_masks": True},
        {"suv_max": 0},
        {"suv_max": float("inf")},
        {"suv_max": "9"},
    ],
)
def test_bad_options(values):
    with pytest.raises(InputError, match=next(iter(values))):
        PrepareOptions(**values)


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
    reported = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["problem"] for entry in reported["skipped"]] == report.skipped
    assert [(entry["case"], entry["problem"]) for entry in reported["left_out"]] == [("US_Set_small", *report.left_out)]
    assert (reported["training"], reported["validation"], reported["leakage"]) == (2, 0, [])


def test_a_reader_that_trips_over_one_case(tmp_path):
    class Tripping(Made):
        def sources(self):
            return [Source("bad", files=("bad.bin",)), Source("good")]

        def load(self, source):
            if source.name == "bad":
                raise KeyError("PixelSpacing")
            return super().load(source)

    report = pipeline.prepare(Tripping(), tmp_path / "out", progress=False)
    assert [r["case"] for r in report.training] == ["good"]
    assert report.skipped == ["bad.bin: case: found KeyError ('PixelSpacing'); allowed: a case that can be read"]


def test_nothing_usable_writes_no_index(manifest, tmp_path, square):
    root, add = manifest
    add("a", GREY, square)
    prepare(root, tmp_path / "out")
    add("a", GREY, square * 0, raw=" ")  # the same case, now empty
    report = prepare(root, tmp_path / "out")
    assert len(report.skipped) == 1 and not report.training
    assert not (tmp_path / "out" / "dataset.json").exists() and not list((tmp_path / "out" / "arrays").iterdir())


def test_another_programs_index_is_kept(manifest, tmp_path, square):
    root, add = manifest
    add("a", GREY, square)
    (root / "dataset.json").write_text('{"channel_names": {"0": "CT"}}')
    with pytest.raises(InputError, match="another program's file"):
        prepare(root, root)
    assert (root / "dataset.json").read_text() == '{"channel_names": {"0": "CT"}}'


def test_duplicate_names(manifest, tmp_path, square):
    root, add = manifest
    add("a b", GREY, square)
    add("good", GREY, square)
    add("a_b", GREY, square)
    report = prepare(root, tmp_path / "out")
    assert [r["case"] for r in report.training] == ["US_Set_good"]
    assert len(report.skipped) == 2 and all("2 cases named 'US_Set_a_b'" in line for line in report.skipped)


def test_out_is_a_file(manifest, tmp_path, square):
    root, add = manifest
    add("a", GREY, square)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out"):
        prepare(root, tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_array_that_cannot_be_written_stops_the_run(manifest, tmp_path, square, workers):
    root, add = manifest
    for case in "abc":
        add(case, GREY, square)
    (tmp_path / "out" / "arrays" / "US_Set_b.image.npy").mkdir(parents=True)
    with pytest.raises(InputError, match=r"US_Set_b\.image\.npy.*with free space"):
        prepare(root, tmp_path / "out", workers)
    assert not list((tmp_path / "out").rglob("*.partial")) and not (tmp_path / "out" / "dataset.json").exists()


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"before")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_volumes_stay_whole(tmp_path):
    """The two ventricles of the MR phantom share an id and stay one mask."""
    (tmp_path / "arrays").mkdir()
    reader = DemoReader()
    source = next(s for s in reader.sources() if s.name.startswith("MR"))
    outcome = prepare_case(source, reader, tmp_path, PrepareOptions())
    assert outcome.record["dimension"] == 3 and outcome.record["spacing"] == [6.0, 1.8, 1.8]
    assert list(outcome.record["labels"].values()) == ["ventricles", "enhancing tumor", "tumor core"]
    assert outcome.size == sum(p.stat().st_size for p in (tmp_path / "arrays").iterdir())


def test_names_beyond_ascii_and_long_ones_stay_apart():
    parts = [("US", name) for name in ("患者", "患児", "é", "\udcff", "\ud800")]
    parts += [("x" * 300,), ("x" * 301,), ("x" * 160,)]
    names = [safe_name(*part) for part in parts]
    assert len(set(names)) == len(names) and names == [safe_name(*part) for part in parts]
    assert all(name.isascii() and 0 < len(name) <= 160 and name == safe_name(name) for name in names)
