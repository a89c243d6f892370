"""Malformed input through the command line: it is reported, good cases are prepared, and the exit code is 1."""

import json
import re

import pytest

from custom.data.prepared import load_dataset
from tests.data_prep.malformed.coco_files import COCO, coco_good
from tests.data_prep.malformed.dicom_series import DICOM, dicom_good
from tests.data_prep.malformed.folders import IMAGES, NIFTI, images_good, nifti_good
from tests.data_prep.malformed.inputs import LABEL, LEFT_OUT, REPAIRED, SKIPPED
from tests.data_prep.malformed.manifests import MANIFEST, manifest_good
from tests.data_prep.malformed.npz_files import NPZ, npz, npz_good

TABLES = {
    "npz": (npz_good, NPZ),
    "manifest": (manifest_good, MANIFEST),
    "nifti": (nifti_good, NIFTI),
    "images": (images_good, IMAGES),
    "coco": (coco_good, COCO),
    "dicom": (dicom_good, DICOM),
}
CASES = [(verb, good, *entry) for verb, (good, table) in TABLES.items() for entry in table]


@pytest.mark.parametrize(
    ("verb", "good", "add", "kind", "pattern"),
    [(verb, good, add, kind, pattern) for verb, good, _, add, kind, pattern in CASES],
    ids=[f"{verb}: {name}" for verb, _, name, *_ in CASES],
)
def test_malformed(call, source, tmp_path, verb, good, add, kind, pattern):
    options = [part for key, value in good(source).items() for part in (f"--{key}", value)]
    add(source)
    code, out, err = call(verb, "--src", source, "--out", tmp_path / "out", "--workers", 1, *options)
    assert "Traceback" not in out + err and err == "" and code == int(kind == SKIPPED)
    prepared = load_dataset(tmp_path / "out")
    assert len(prepared.training + prepared.validation) == (2 if kind == REPAIRED else 1)
    reported = json.loads((tmp_path / "out" / "report.json").read_bytes())
    lines = [f"skipped: {entry['problem']}" for entry in reported["skipped"]]
    lines += [f"left out: {entry['problem']}" for entry in reported["left_out"]]
    assert {text for text in out.splitlines() if text.startswith(("skipped: ", "left out: "))} == set(lines)
    if kind in (SKIPPED, LEFT_OUT):
        assert lines and all(text.startswith(f"{kind}: ") and len(text) < 6000 for text in lines)
        assert any(re.search(pattern, text) for text in lines), lines
    else:
        assert not lines
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    arrays = {p.name for case in prepared.training + prepared.validation for p in (case.image, case.label)}
    assert names == arrays | {"dataset.json", "report.json"}
    assert all(name.isascii() and len(name) < 200 for name in names)


@pytest.mark.parametrize("verb", TABLES)
def test_the_good_case_is_prepared_once(call, source, tmp_path, verb):
    """A changed option of the reader is noticed; another run with the same options does nothing."""
    options = TABLES[verb][0](source)

    def reused():
        reported = [part for key, value in options.items() for part in (f"--{key}", value)]
        out = call(verb, "--src", source, "--out", tmp_path / "out", "--workers", 1, *reported)[1]
        return "1 cases (1 of them by an earlier run)" in out

    assert [reused(), reused()] == [False, True]
    if verb in ("nifti", "images", "coco", "dicom"):
        options["modality"] = "PET"
        assert [reused(), reused()] == [False, True]
    if verb in ("nifti", "images", "dicom"):
        options["names"] = "{1: thing}"
        assert [reused(), reused()] == [False, True]


def not_json(root):
    (root / "dataset.json").write_text("{")


def other_json(root):
    (root / "a.json").write_text("[]")


WHOLE = [
    ("npz", lambda root: root.rmdir(), r"src: found no such folder"),
    ("npz", lambda root: (root.rmdir(), root.write_text("")), r"src: found no such folder"),
    ("npz", lambda root: None, r"no \.npz file"),
    ("manifest", lambda root: None, r"no manifest lines"),
    ("nifti --modality CT", lambda root: None, r"no folder images"),
    ("nifti --modality CT", not_json, r"dataset\.json: file: found invalid JSON"),
    ("nifti", nifti_good, r"modality: found none"),
    ("nifti --modality CT --names {0:a}", nifti_good, r"names: found"),
    ("images --modality SPECT", images_good, r"modality: found 'SPECT'"),
    ("images --modality US --kind x", images_good, r"kind: found 'x'"),
    ("coco --modality US", lambda root: None, r"annotations"),
    ("coco --modality US", other_json, r"a\.json"),
    ("coco --modality US --annotations b.json", coco_good, r"b\.json"),
    ("dicom", lambda root: None, r"no DICOM file"),
    ("npz", npz("2D_US_a", gts=LABEL * 0), r"found none that could be prepared"),
]


@pytest.mark.parametrize(("arguments", "make", "pattern"), WHOLE, ids=[f"{a}-{n}" for n, (a, *_) in enumerate(WHOLE)])
def test_a_source_that_cannot_be_used_is_one_line(call, source, tmp_path, arguments, make, pattern):
    make(source)
    verb, *options = arguments.split(" ")
    code, _, err = call(verb, "--src", source, "--out", tmp_path / "out", "--workers", 1, *options)
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1 and re.search(pattern, err)
    assert not (tmp_path / "out" / "dataset.json").exists()
