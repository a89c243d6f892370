"""Scores of files: any two formats at one place, folders, and errors before and during reading."""

import csv
import sys

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from custom import score as module
from custom.errors import InputError
from custom.images.dicom import read_series
from custom.images.dicom_seg_writing import write_seg
from custom.images.formats import dicom
from custom.images.geometry import Geometry
from custom.metrics.label_scores import MaskScore
from tests.custom.conftest import axial_series
from tests.data_prep.volumes import save_volume

AFFINE = np.array([[0, 2.0, 0, -5], [-1.5, 0, 0, 9], [0, 0, 4.0, 1], [0, 0, 0, 1]])
PRED, TRUTH = np.zeros((2, 10, 12, 6), np.uint8)
TRUTH[2:7, 3:9, 1:5] = 1
PRED[3:7, 3:9, 1:5] = 1
TRUTH[8:, 9:, 2:] = PRED[8:, 9:, 2:] = 4


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that calls the command line and returns its exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["score", *map(str, arguments)])
        code = 0
        try:
            module.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
            sys.stderr.write("" if isinstance(stop.code, int) else f"{stop.code}\n")
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def save(path, array, affine=AFFINE):
    """Write an IxJxK array in the format of the name's ending."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array.T, photometric="minisblack")
    elif path.suffix == ".npz":
        np.savez(path, segs=array.T)
    elif path.suffix == ".png":
        Image.fromarray(array.T).save(path)
    else:
        save_volume(path, array, affine)
    return path


def expected(pred=PRED, truth=TRUTH, value=1):
    masks = pred == value, truth == value
    return 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".mgz", ".tif", ".npz"])
def test_any_format_against_nifti(tmp_path, ending):
    pred, truth = save(tmp_path / f"p{ending}", PRED), save(tmp_path / "t.nii.gz", TRUTH)
    for first, second, sign in ((pred, truth, 1), (truth, pred, -1)):
        one, four = module.score_files(first, second, tolerance=1.0, case="t")
        assert (one.case, one.label, one.name, one.unit) == ("t", 1, "", "mL")
        assert one.dsc == pytest.approx(expected()) and 0 < one.nsd < 1 and one.hd95 == pytest.approx(1.5)
        volumes = one.volume_pred, one.volume_truth
        assert volumes[::sign] == pytest.approx(np.array([96, 120]) * 12 / 1000)
        assert (four.label, four.dsc, four.nsd, four.hd95) == (4, 1, 1, 0)


def test_the_columns_are_the_fields():
    assert MaskScore._fields == module.COLUMNS


def test_axes_in_another_order(tmp_path):
    image = nib.Nifti1Image(TRUTH, AFFINE)
    nib.save(nib.as_closest_canonical(image), tmp_path / "t.nii")
    moved = AFFINE.copy()
    moved[:3, 3] += 0.05  # within a tenth of a voxel
    found = module.score_files(save(tmp_path / "p.nii", PRED, moved), tmp_path / "t.nii")
    assert found[0].dsc == pytest.approx(expected())


@pytest.mark.parametrize(
    ("ending", "change", "text"),
    [
        (".nii", lambda a, m: (a[1:], m), "p.nii: shape: found"),
        (".nii", lambda a, m: (a, m + np.eye(4)[:, [3, 0, 1, 2]]), "p.nii: affine: found"),
        (".nii", lambda a, m: (a, m * [1.05, 1, 1, 1]), "p.nii: affine: found"),
        (".tif", lambda a, m: (a[1:], m), r"p.tif: shape: found \(6, 12, 9\); allowed: \(6, 12, 10\), as"),
    ],
    ids=["shape", "shifted", "spacing", "stack"],
)
def test_other_grids(tmp_path, ending, change, text):
    truth = save(tmp_path / "t.nii", TRUTH)
    with pytest.raises(InputError, match=text):
        module.score_files(save(tmp_path / f"p{ending}", *change(PRED, AFFINE)), truth)


def test_other_spacings_of_stacks(tmp_path):
    for name, step in (("p", 2.0), ("t", 2.5)):
        metadata = {"axes": "ZYX", "spacing": step, "unit": "mm"}
        options = {"imagej": True, "resolution": (1, 1), "metadata": metadata}
        tifffile.imwrite(tmp_path / f"{name}.tif", TRUTH.T, **options)
    assert module.score_files(*[tmp_path / "t.tif"] * 2)[0].volume_truth == pytest.approx(120 * 2.5 / 1000)
    with pytest.raises(InputError, match="p.tif: spacing: found .*2.0.* allowed: .*2.5"):
        module.score_files(tmp_path / "p.tif", tmp_path / "t.tif")


def test_pictures(tmp_path):
    pred, truth = save(tmp_path / "p.png", PRED[..., 2]), save(tmp_path / "t.tif", TRUTH[..., 2])
    one = module.score_files(pred, truth)[0]
    assert (one.volume_pred, one.volume_truth, one.unit, one.hd95) == (24, 30, "pixels", 1)
    flat = save(tmp_path / "t.nii", TRUTH[..., 2:3])
    one = module.score_files(pred, flat)[0]
    assert (one.volume_truth, one.unit, one.hd95) == (pytest.approx(30 * 3), "mm2", 1.5)
    assert one.dsc == pytest.approx(expected(PRED[..., 2], TRUTH[..., 2]))
    row = save(tmp_path / "r.png", TRUTH[:, 4:5, 2])  # one pixel high
    assert module.score_files(row, row)[0].dsc == 1


def test_dicom_needs_its_series(tmp_path, call):
    labels = np.zeros((4, 12, 10), np.uint8)
    labels[1:3, 2:9, 2:8] = 1
    folder = axial_series(tmp_path / "ct", np.zeros((4, 12, 10), np.int16))
    series = read_series(folder)
    write_seg(tmp_path / "s.dcm", labels, {1: "liver", 2: "spleen"}, series)
    affine = series.geometry.affine
    save(tmp_path / "t.nii.gz", Geometry(affine, series.geometry.shape).restore(labels), affine)
    code, out, err = call(tmp_path / "s.dcm", tmp_path / "t.nii.gz")
    assert code == 1 and out == "" and "s.dcm: image: found no image; allowed: --image with the DICOM series" in err
    image = dicom.read(str(folder))
    for pair in (("s.dcm", "t.nii.gz"), ("t.nii.gz", "s.dcm"), ("s.dcm", "s.dcm")):
        liver, spleen = module.score_files(*(tmp_path / name for name in pair), series=image)
        assert (liver.label, liver.name, liver.dsc, liver.nsd, liver.hd95, liver.unit) == (1, "liver", 1, 1, 0, "mL")
        assert spleen.name == "spleen" and np.isnan([spleen.dsc, spleen.nsd, spleen.hd95]).all()
    save(tmp_path / "other.nii.gz", TRUTH)
    with pytest.raises(InputError, match=r"other\.nii\.gz: shape"):
        module.score_files(tmp_path / "other.nii.gz", tmp_path / "s.dcm", series=image)
    code, out, _ = call(tmp_path / "s.dcm", tmp_path / "t.nii.gz", "--image", folder)
    assert code == 0 and [line.split()[1] for line in out.splitlines()[1:]] == ["1", "2", "1.0000"]


def test_folders(tmp_path, call):
    pred, truth, out = tmp_path / "pred", tmp_path / "truth", tmp_path / "new" / "scores.csv"
    save(pred / "a_mask.nii.gz", PRED)
    save(pred / "a_overlay.png", PRED[..., 0])
    save(pred / "b.nrrd", TRUTH)
    save(truth / "a.nii.gz", TRUTH)
    save(truth / "b_GT.mha", TRUTH)
    (truth / "notes.txt").write_text("")
    code, text, err = call(pred, truth, "--out", out)
    assert code == 0 and err == ""
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == module.COLUMNS
    assert [(row["case"], row["label"]) for row in rows] == [("a", "1"), ("a", "4"), ("b", "1"), ("b", "4")]
    assert rows[0] == {
        **{"case": "a", "label": "1", "name": "", "dsc": f"{expected():.4f}", "nsd": rows[0]["nsd"], "hd95": "1.500"},
        **{"volume_pred": "1.152", "volume_truth": "1.44", "unit": "mL"},
    }
    lines = text.splitlines()
    assert len(lines) == 6 and lines[-1].split()[:2] == ["mean", f"{(expected() + 3) / 4:.4f}"]
    assert lines[0].index("DSC") + 3 == lines[1].index(f"{expected():.4f}") + 6 and lines[-1].split()[3] == "0.375"


def test_a_label_that_is_missed_counts_for_the_mean_but_has_no_distance(tmp_path, call):
    save(tmp_path / "p.nii", np.where(TRUTH == 4, 0, TRUTH))
    code, out, _ = call(tmp_path / "p.nii", save(tmp_path / "t.nii", TRUTH), "--out", tmp_path / "s.csv")
    assert code == 0 and out.splitlines()[-1].split() == ["mean", "0.5000", "0.5000", "0.000"]
    assert (tmp_path / "s.csv").read_text().splitlines()[2] == "t,4,,0.0000,0.0000,,0,0.288,mL"


def test_a_case_without_any_mask_has_its_rows(tmp_path, call):
    pred, truth = tmp_path / "pred", tmp_path / "truth"
    for folder in (pred, truth):
        save(folder / "a.nii", TRUTH)
        save(folder / "b.nii", TRUTH * 0)
    code, out, _ = call(pred, truth, "--out", tmp_path / "s.csv")
    assert code == 0 and out.splitlines()[-1].split() == ["mean", "1.0000", "1.0000", "0.000"]
    assert (tmp_path / "s.csv").read_text().splitlines()[3:] == ["b,1,,,,,0,0,", "b,4,,,,,0,0,"]


def test_one_bad_pair_does_not_stop_the_others(tmp_path, call):
    pred, truth = tmp_path / "pred", tmp_path / "truth"
    for name, array in (("a", PRED), ("b", PRED[1:]), ("d", PRED)):
        save(pred / f"{name}.nii.gz", array)
    (pred / "d.nii.gz").write_bytes(b"no volume")
    save(pred / "e.nii.gz", PRED)
    save(pred / "e.mha", PRED)
    for name in "abcde":
        save(truth / f"{name}.nii.gz", TRUTH)
    code, out, err = call(pred, truth, "--out", tmp_path / "s.csv")
    assert code == 1 and len(out.splitlines()) == 4 and len((tmp_path / "s.csv").read_text().splitlines()) == 3
    reported = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(reported) == 4 and "Traceback" not in err
    for part in ("c.nii.gz: pair: found 0 in", "e.nii.gz: pair: found 2 in", "b.nii.gz: shape", "d.nii.gz: file"):
        assert sum(part in line for line in reported) == 1


def test_an_image_beside_its_mask_is_no_mask(tmp_path, call):
    for folder in ("pred", "truth"):
        save(tmp_path / folder / "a.nii.gz", TRUTH.astype(np.int16) - 1)
        save(tmp_path / folder / "a_seg.nii.gz", TRUTH)
    code, out, _ = call(tmp_path / "pred", tmp_path / "truth")
    assert code == 0 and out.splitlines()[-1].split()[1] == "1.0000"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("none.nii", "t.nii"), "arguments: pred: found no such file none.nii"),
        (("t.nii", "none"), "arguments: truth: found no such file none"),
        (("t.nii", "."), "allowed: two files or two folders"),
        (("empty", "empty"), "empty: masks: found none; allowed: files that end in"),
        (("t.nii", "t.nii", "--tolerance", 0), "arguments: tolerance: found 0; allowed: a positive number"),
        (("t.nii", "t.nii", "--tolerance", "x"), "arguments: tolerance: found 'x'"),
        (("t.nii", "t.nii", "--out", "t.nii"), "arguments: out: found t.nii; allowed: a CSV file"),
        (("t.nii", "t.nii", "--out", "t.nii/s.csv"), "arguments: out: found t.nii/s.csv"),
        (("t.nii", "t.nii", "--out", "folder.csv"), "arguments: out: found folder.csv"),
        (("t.nii", "t.nii", "--image", "none"), "none: image: found no such file"),
        (("t.nii", "t.nii", "--tolerence", 1), "--tolerence: found an unknown option"),
        (("t.nii",), "truth: found nothing"),
        (("t.txt", "t.nii"), "t.txt: image: found a file of another kind"),
    ],
)
def test_arguments(tmp_path, monkeypatch, call, arguments, text):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "folder.csv"):
        (tmp_path / name).mkdir()
    (tmp_path / "t.txt").write_text("x" * 300)
    save(tmp_path / "t.nii", TRUTH)
    before = (tmp_path / "t.nii").read_bytes()
    code, out, err = call(*arguments)
    assert code == 1 and out == "" and text in err and err.count("\n") == 1
    assert (tmp_path / "t.nii").read_bytes() == before and not list(tmp_path.glob("*.csv/*"))
