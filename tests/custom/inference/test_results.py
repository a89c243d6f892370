import json
import resource
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from custom.inference import mask_files, results
from custom.inference.canvas import Canvas
from custom.inference.results import CaseResult, is_finished, read_report, write_results
from custom.inference.segmenter import Segmentation
from custom.inference.sources import read_input
from custom.modalities import MODALITIES

BOXES = np.array([[1.0, 2, 8, 6], [3, 3, 9, 7], [0, 0, 1, 1.5]])


def segmentation(labels, boxes=3, *, separate=None, modality="US", likely=("US", "CT", "US"), probability=0.6):
    probabilities = np.full((boxes, len(MODALITIES)), (1 - probability) / (len(MODALITIES) - 1))
    for k, name in enumerate(likely):
        probabilities[k, MODALITIES.index(name)] = probability
    return Segmentation(
        labels=labels,
        masks=separate,
        iou=np.linspace(0.5, 0.9, boxes),
        modality=modality,
        probabilities=None if modality is None else probabilities,
        seconds={"encode": 0.1, "decode": 0.2, "resize": 0.3},
    )


def overlapping():
    """Two overlapping masks and an empty one on a picture of 8 x 10."""
    canvas = Canvas((8, 10), 3, "last", keep_masks=True)
    for k, (x_min, y_min, x_max, y_max) in enumerate([(2, 2, 6, 5), (4, 4, 8, 7)], start=1):
        logits = np.full((8, 10), -1.0)
        logits[y_min : y_max + 1, x_min : x_max + 1] = 1
        canvas.paint(k, logits)
    return canvas


def picture_result(tmp_path, *, separate=False, name="a.png", **fields):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    canvas = overlapping()
    return CaseResult(
        image=read_input(tmp_path / name, modality=fields.pop("declared", None)),
        boxes=BOXES,
        segmentation=segmentation(canvas.labels, separate=canvas.masks if separate else None, **fields),
        told={"model": {"backend": "fake"}},
        fingerprint="f1",
        read_seconds=0.05,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_picture(tmp_path):
    result, out = picture_result(tmp_path, declared="US"), tmp_path / "new" / "out"
    report = write_results(result, out, "a")
    assert names(out) == ["a.json", "a_mask.png", "a_overlay.png"]
    assert json.loads((out / "a.json").read_text()) == report == read_report(out, "a")
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a_mask.png")), result.segmentation.labels)
    assert np.asarray(Image.open(out / "a_overlay.png")).shape == (8, 10, 3)
    assert report["image"] == str(tmp_path / "a.png") and report["size"] == [10, 8] and report["spacing"] is None
    assert (report["modality"], report["modality_source"], report["kind"]) == ("US", "argument", "picture")
    first, second, third = report["boxes"]
    assert first == {
        "box": [1, 2, 8, 6],
        "iou": 0.5,
        "area": 20 - 6,
        "declared_modality": "US",
        "modality": "US",
        "predicted_modality": "US",
        "probability": 0.6,
    }
    assert second["area"] == 20 and second["warning"] == "declared US, but it looks like CT (60%)"
    assert third["area"] == 0 and third["box"] == [0, 0, 1, 1.5] and "warning" not in third
    seconds = report["seconds"]
    assert list(seconds) == ["read", "encode", "decode", "resize", "write"] and seconds["write"] > 0
    assert report["model"] == {"backend": "fake"} and report["files"] == ["a_mask.png", "a_overlay.png"]


def test_separate_masks(tmp_path):
    result, out = picture_result(tmp_path, separate=True), tmp_path / "out"
    report = write_results(result, out, "a")
    assert names(out) == ["a.json", "a_mask_1.png", "a_mask_2.png", "a_mask_3.png", "a_overlay.png"]
    for k, entry in enumerate(report["boxes"]):
        found = np.asarray(Image.open(out / f"a_mask_{k + 1}.png"))
        np.testing.assert_array_equal(found, result.segmentation.masks[k])
        assert entry["area"] == found.sum() == (20, 20, 0)[k]


@pytest.mark.parametrize(
    ("declared", "modality", "expected"),
    [(None, "OCT", ("OCT", "classifier")), (None, None, (None, None)), ("CT", None, ("CT", "argument"))],
)
def test_where_the_modality_is_from(tmp_path, declared, modality, expected):
    report = write_results(picture_result(tmp_path, declared=declared, modality=modality), tmp_path / "out", "a")
    assert (report["modality"], report["modality_source"]) == expected
    assert report["boxes"][0]["declared_modality"] == declared and report["boxes"][0]["modality"] == modality
    assert ("predicted_modality" in report["boxes"][0]) == (modality is not None)


def test_unsure_network_does_not_warn(tmp_path):
    report = write_results(picture_result(tmp_path, declared="OCT", probability=0.4), tmp_path / "out", "a")
    assert not any("warning" in entry for entry in report["boxes"])


def test_volume(tmp_path):
    affine = np.diag([-0.5, -0.5, 4.0, 1])
    nib.save(nib.Nifti1Image(np.zeros((10, 8, 20), np.uint8), affine), tmp_path / "3D_MR_v.nii.gz")
    image = read_input(tmp_path / "3D_MR_v.nii.gz")
    labels = np.zeros((20, 8, 10), np.uint8)
    labels[3:6, 2:4, 2:4], labels[18, 0, 0] = 1, 2
    boxes = np.array([[1, 1, 2, 7, 6, 17], [0, 0, 18, 3, 3, 18.0]])
    done = segmentation(labels, 2, likely=("MR", "CT"), modality="MR")
    result = CaseResult(image=image, boxes=boxes, segmentation=done, told={}, fingerprint="f", read_seconds=0)
    out = tmp_path / "out"
    report = write_results(result, out, "v")
    assert names(out) == ["v.json", "v_mask.nii.gz", "v_overlay.png"]
    assert (report["kind"], report["size"], report["spacing"]) == ("volume", [10, 8, 20], [0.5, 0.5, 4.0])
    assert [(e["voxels"], e["volume_mm3"]) for e in report["boxes"]] == [(12, 12.0), (1, 1.0)]
    assert (report["modality"], report["modality_source"]) == ("MR", "file name")
    found = nib.load(out / "v_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), image.geometry.restore(labels))
    assert np.asarray(Image.open(out / "v_overlay.png")).shape[2] == 3


def test_area_in_millimetres(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((10, 8, 1), np.uint8), np.diag([-0.5, -0.25, 4.0, 1])), tmp_path / "a.nii.gz")
    canvas = overlapping()
    result = CaseResult(
        image=read_input(tmp_path / "a.nii.gz"),
        boxes=BOXES,
        segmentation=segmentation(canvas.labels),
        told={},
        fingerprint="f",
        read_seconds=0,
    )
    report = write_results(result, tmp_path / "out", "a")
    assert report["boxes"][1]["area"] == 20 and report["boxes"][1]["area_mm2"] == 2.5


def test_finished(tmp_path):
    out = tmp_path / "out"
    assert not is_finished(out, "a", "f1")
    write_results(picture_result(tmp_path), out, "a")
    assert is_finished(out, "a", "f1") and not is_finished(out, "a", "f2") and not is_finished(out, "b", "f1")
    (out / "a_mask.png").unlink()
    assert not is_finished(out, "a", "f1")
    for content in ("", "[]", "{}", '{"fingerprint": "f1"}', '{"fingerprint": "f1", "files": [1]}', "{\xff"):
        (out / "a.json").write_text(content, encoding="latin-1")
        assert read_report(out, "a") is None and not is_finished(out, "a", "f1")


def test_next_run_removes_what_does_not_fit_any_more(tmp_path):
    out = tmp_path / "out"
    write_results(picture_result(tmp_path, separate=True), out, "a")
    (out / "a_mask_4.png").touch()
    write_results(picture_result(tmp_path), out, "a")
    assert names(out) == ["a.json", "a_mask.png", "a_mask_4.png", "a_overlay.png"]


@pytest.mark.parametrize("fails", ["write_mask", "write_png", "json"])
@pytest.mark.parametrize("earlier", [False, True])
def test_failed_write_leaves_nothing_half_written(tmp_path, monkeypatch, fails, earlier):
    out = tmp_path / "out"
    if earlier:
        write_results(picture_result(tmp_path), out, "a")

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    if fails == "json":
        real = mask_files.write_whole
        monkeypatch.setattr(results, "write_whole", lambda path, write: real(path, lambda file: (write(file), full())))
    else:
        monkeypatch.setattr(results, fails, full)
    with pytest.raises(OSError, match="No space"):
        write_results(picture_result(tmp_path, separate=True), out, "a")
    assert not is_finished(out, "a", "f1") and not any("mask_" in name or name.startswith(".") for name in names(out))
    monkeypatch.undo()
    write_results(picture_result(tmp_path), out, "a")
    assert names(out) == ["a.json", "a_mask.png", "a_overlay.png"]


def test_disk_full_in_the_middle_of_a_file(tmp_path):
    """A limit on the size of files stands for a full disk: the mask fits, the overlay does not."""
    code = f"""
import resource, signal, sys
sys.path[:0] = {[str(tmp_path), *sys.path]!r}
import numpy as np
from PIL import Image
from custom.inference.results import CaseResult, write_results
from custom.inference.segmenter import Segmentation
from custom.inference.sources import read_input
noise = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
Image.fromarray(noise).save("a.png")
done = Segmentation(labels=np.zeros((200, 200), np.uint8), masks=None, iou=np.zeros(1), modality=None,
                    probabilities=None, seconds={{}})
result = CaseResult(image=read_input("a.png"), boxes=np.array([[1., 2, 30, 40]]), segmentation=done, told={{}},
                    fingerprint="f", read_seconds=0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
from pathlib import Path
try:
    write_results(result, Path("out"), "a")
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 27 and names(tmp_path / "out") == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20000


def test_a_report_cannot_name_files_of_others(tmp_path):
    result, out = picture_result(tmp_path), tmp_path / "out"
    report = write_results(result, out, "a")
    (tmp_path / "secret.txt").touch()
    (out / "other_mask.png").touch()
    foreign = ["other_mask.png", "../secret.txt", str(tmp_path / "secret.txt"), "..", "a/../other_mask.png"]
    (out / "a.json").write_text(json.dumps(report | {"files": [*report["files"], "a_mask_1.png", *foreign]}))
    (out / "a_mask_1.png").touch()
    write_results(result, out, "a")
    assert names(out) == ["a.json", "a_mask.png", "a_overlay.png", "other_mask.png"]
    assert (tmp_path / "secret.txt").is_file()
