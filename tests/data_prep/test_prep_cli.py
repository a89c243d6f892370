import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from custom.data.prepared import load_dataset
from custom.modalities import MODALITIES
from data_prep import DEFAULT_DEMO_DIR, cli

GREY = np.full((32, 48), 90, np.uint8)


def test_demo_is_the_same_on_every_run(call, tmp_path):
    code, out, err = call("demo", "--out", tmp_path / "a", "--workers", 2)
    assert (code, err) == (0, "") and "66 cases in" in out
    assert call("demo", "--out", tmp_path / "b", "--workers", 1)[0] == 0
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 134
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert sum((tmp_path / "a" / f).stat().st_size for f in files) < 25e6
    prepared = load_dataset(tmp_path / "a")
    assert prepared.modalities == MODALITIES
    assert (len(prepared.training), len(prepared.validation)) == (44, 22)


def test_default_demo_folder():
    assert DEFAULT_DEMO_DIR.parts[-2:] == ("data", "demo")
    assert (DEFAULT_DEMO_DIR.parents[1] / "data_prep").is_dir()


def test_skipped_cases_are_told_and_exit_with_1(call, manifest, square, tmp_path):
    root, add = manifest
    add("good", GREY, square)
    add("empty", GREY, square * 0)
    code, out, err = call("manifest", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    assert (code, err) == (1, "")
    assert [line for line in out.splitlines() if line.startswith("skipped: ")] == [
        f"skipped: {root}/US/empty.label.png: label: found no foreground; allowed: at least one id above 0"
    ]
    assert len(load_dataset(tmp_path / "out").training) == 1


def test_nothing_usable(call, manifest, square, tmp_path):
    root, add = manifest
    add("empty", GREY, square * 0)
    code, out, err = call("manifest", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    assert code == 1 and "skipped: " in out
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_second_run_tells_what_it_found(call, manifest, square, tmp_path):
    root, add = manifest
    add("a", GREY, square)
    add("b", GREY + 1, square)
    command = ("manifest", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    assert "2 cases in" in call(*command)[1]
    add("c", GREY + 2, square)
    assert "3 cases (2 of them by an earlier run) in" in call(*command)[1]


def test_npz(call, tmp_path, square):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "2D_US_a.npz", imgs=GREY, gts=square)
    code, *_ = call("npz", "--src", tmp_path / "in", "--out", tmp_path / "out", "--val_fraction", 1, "--workers", 1)
    assert code == 0 and [r.case for r in load_dataset(tmp_path / "out").validation] == ["2D_US_a"]


def nifti_set(root, square):
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.stack([square] * 3, -1), np.eye(4)), root / folder / "p1.nii.gz")
    return {"modality": "MR"}


def images_set(root, square):
    for folder, content in (("pictures", GREY), ("masks", square * 2)):
        (root / folder).mkdir(parents=True)
        Image.fromarray(content).save(root / folder / "p1.png")
    return {"modality": "ultrasound", "images": "pictures", "kind": "ids"}


@pytest.mark.parametrize("names", ["{1: tumor, 2: tumor}", "names.json"])
@pytest.mark.parametrize(("verb", "make"), [("nifti", nifti_set), ("images", images_set)])
def test_names_as_text_or_file(call, tmp_path, monkeypatch, square, verb, make, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.json").write_text('{"1": "tumor", "2": "tumor"}')
    options = [part for key, value in make(tmp_path / "in", square).items() for part in (f"--{key}", value)]
    code, _, err = call(verb, "--src", "in", "--out", "out", "--workers", 1, *options, "--names", names)
    assert (code, err) == (0, "")
    (record,) = load_dataset(tmp_path / "out").training
    assert record.labels == {1: "tumor"} and record.modality in ("MR", "US")


def test_palette_from_a_file(call, tmp_path, square):
    options = images_set(tmp_path / "in", square)
    (tmp_path / "palette.json").write_text('{"#020202": "vessel"}')
    options = ["--modality", "US", "--images", options["images"], "--palette", tmp_path / "palette.json"]
    assert call("images", "--src", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1, *options)[0] == 0
    assert load_dataset(tmp_path / "out").training[0].labels == {1: "vessel"}


def test_coco(call, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(GREY).save(tmp_path / "in" / "a.png")
    objects = [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[2, 2, 20, 2, 20, 20, 2, 20]]}]
    images = [{"id": 1, "file_name": "a.png", "height": 32, "width": 48}]
    content = {"images": images, "annotations": objects, "categories": [{"id": 7, "name": "polyp"}]}
    (tmp_path / "in" / "a.json").write_text(json.dumps(content))
    options = ["--modality", "Endoscopy", "--annotations", "a.json", "--workers", 1]
    assert call("coco", "--src", tmp_path / "in", "--out", tmp_path / "out", *options)[0] == 0
    assert load_dataset(tmp_path / "out").training[0].labels == {1: "polyp"}


def test_check(call, manifest, square, tmp_path):
    root, add = manifest
    add("a", GREY, square)
    call("manifest", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    assert call("check", tmp_path / "out")[0] == 0
    np.save(tmp_path / "out" / "arrays" / "US_Set_a.label.npy", square[None] * 3)
    code, out, _ = call("check", tmp_path / "out")
    assert code == 1 and "problem: " in out


@pytest.mark.parametrize("verb", ["check", "show", "clip-features", "clip_features", "speed"])
def test_tools_without_a_set(call, tmp_path, verb):
    code, out, err = call(verb, tmp_path, *(["--out", tmp_path / "sheet.png"] if verb == "show" else []))
    assert code == 1
    assert "dataset.json: found no such file" in out + err and "Traceback" not in out + err


def test_leakage_is_reported(call, manifest, square, tmp_path):
    root, add = manifest
    add("a", GREY, square)
    add("b", GREY, square, split="val")
    command = ("manifest", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    code, _, err = call(*command)
    assert code == 1 and err.count("\n") == 1 and "one image: US_Set_a in training, US_Set_b in validation" in err
    code, out, err = call(*command, "--leakage", "warn")
    assert (code, err) == (0, "") and "leakage: one image" in out


def test_a_path_that_is_not_unicode_is_reported(manifest, square, tmp_path):
    """A file name with the byte 0xff cannot be shown on a terminal."""
    (tmp_path / "in").mkdir()
    try:
        (tmp_path / "in" / "2D_US_\udcff.npz").write_bytes(b"no archive")
    except OSError:
        pytest.skip("the file system takes no such name")
    command = [sys.executable, "-m", "data_prep", "npz", "--src", tmp_path / "in", "--out", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "2D_US_\\udcff.npz: file" in run.stdout
    assert "2D_US_\udcff.npz" in json.loads((tmp_path / "out" / "report.json").read_bytes())["skipped"][0]["problem"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--workers", "0"),
        ("demo", "--workers", "two"),
        ("demo", "--min_size", "-1"),
        ("demo", "--components", "maybe"),
        ("demo", "--ct_window", "liver"),
        ("demo", "--bogus", "1"),
        ("demo", "--out"),
        ("manifest",),
        ("manifest", "--src", "no such folder"),
        ("npz", "--src", ".", "--val_fraction", "3"),
        ("npz", "--src", ".", "--patient_pattern", "p[0-9]+"),
        ("npz", "--src", ".", "--leakage", "ignore"),
        ("npz", "--src", ".", "--max_masks", "0"),
        ("npz", "--src", ".", "--suv_max", "-1"),
        ("npz", "--src", ".", "--modality", "US"),
        ("dicom",),
        ("dicom", "--src", "."),
        ("dicom", "--src", ".", "--out", "out", "--names", "none.json"),
        ("coco", "--src", ".", "--out", "out"),
        ("images", "--src", ".", "--out", "out", "--palette", "[1]"),
        ("images", "--src", ".", "--out", "out", "--modality", "SPECT"),
        ("nifti", "--src", ".", "--out", "out", "--names", "3"),
        ("show", "."),
        ("show", ".", "--out", "out", "--rows", "3"),
        ("unknown",),
    ],
)
def test_bad_arguments_are_one_line(call, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    if "--out" not in arguments and arguments[0] in ("demo", "npz"):
        arguments += ("--out", "out")
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "expected"), [("40,350", (40, 350)), ("-600,1500", (-600, 1500)), ("bone", (400, 1800))]
)
def test_window_on_the_command_line(monkeypatch, call, value, expected):
    seen = {}
    monkeypatch.setattr(cli, "prepare", lambda reader, out, **options: seen.update(options) or sys.exit(7))
    assert call("demo", "--ct_window", value)[0] == 7
    window = seen["options"].window
    assert (window.level, window.width) == expected


def test_a_sheet_needs_the_name_of_a_picture(call, tmp_path):
    code, out, err = call("show", tmp_path)
    assert (code, out) == (1, "") and err.startswith("error: arguments: --out: found nothing; allowed: the PNG file to")


def test_a_mistyped_option_is_compared_with_those_of_all_verbs(call):
    assert "allowed: --modality (nearest)" in call("nifti", "--modalty", "MR")[2]
    assert "allowed: --val_fraction (nearest)" in call("nifti", "--val-fractoin", "0.5")[2]
    assert "(nearest: nifti)" in call("nfti")[2]


def test_help_starts_nothing(call):
    code, out, err = call("demo", "--help")
    assert code == 0 and "phantom" in out + err
