import json
import resource
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from custom import atomic_write
from custom.errors import InputError
from custom.images.formats import mask_format
from custom.images.formats import pictures as png
from custom.images.reading import read_image
from custom.inference import result_files
from custom.inference.label_map import Canvas
from custom.inference.result import Result
from custom.inference.result_files import is_finished, read_report, write_result
from custom.inference.segmenter import Segmentation
from custom.modalities import MODALITIES

BOXES = np.array([[1.0, 2, 8, 6], [3, 3, 9, 7], [0, 0, 1, 1.5]])


def segmentation(labels, masks, boxes=3, *, modality="US", likely=("US", "CT", "US"), probability=0.6):
    probabilities = np.full((boxes, len(MODALITIES)), (1 - probability) / (len(MODALITIES) - 1))
    for k, name in enumerate(likely):
        probabilities[k, MODALITIES.index(name)] = probability
    return Segmentation(
        labels=labels,
        masks=masks,
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


def result_of(image, done, boxes=BOXES):
    names = tuple(f"box {k}" for k in range(1, len(boxes) + 1))
    model, seconds = {"backend": "fake"}, {"read": 0.05, **done.seconds}
    return Result(image=image, boxes=boxes, slices=None, names=names, segmentation=done, model=model, seconds=seconds)


def write_results(result, out, name, *, separate=False):
    module, _ = mask_format(result.image)
    return write_result(result, out, name, module, separate=separate, more={"fingerprint": "f1"})


def picture_result(tmp_path, *, name="a.png", **fields):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    canvas = overlapping()
    image = read_image(tmp_path / name, modality=fields.pop("declared", None))
    return result_of(image, segmentation(canvas.labels, canvas.masks, **fields))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_picture(tmp_path):
    result, out = picture_result(tmp_path, declared="US"), tmp_path / "new" / "out"
    report = write_results(result, out, "a")
    assert names(out) == ["a.json", "a_mask.png", "a_overlay.png"]
    assert json.loads((out / "a.json").read_text()) == report == read_report(out, "a")
    np.testing.assert_array_equal(np.asarray(Image.open(out / "a_mask.png")), result.segmentation.labels)
    assert np.asarray(Image.open(out / "a_overlay.png")).shape == (416, 520, 3)  # enlarged, so that it can be seen
    assert report["image"] == str(tmp_path / "a.png") and report["size"] == [10, 8] and report["spacing"] is None
    assert (report["modality"], report["modality_source"], report["kind"]) == ("US", "argument", "picture")
    first, second, third = report["boxes"]
    assert first == {
        "name": "box 1",
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
    result, out = picture_result(tmp_path), tmp_path / "out"
    report = write_results(result, out, "a", separate=True)
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
    image = read_image(tmp_path / "3D_MR_v.nii.gz")
    labels = np.zeros((20, 8, 10), np.uint8)
    labels[3:6, 2:4, 2:4], labels[18, 0, 0] = 1, 2
    boxes = np.array([[1, 1, 2, 7, 6, 17], [0, 0, 18, 3, 3, 18.0]])
    done = segmentation(labels, None, 2, likely=("MR", "CT"), modality="MR")
    result = result_of(image, done, boxes)
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
    result = result_of(read_image(tmp_path / "a.nii.gz"), segmentation(canvas.labels, canvas.masks))
    report = write_results(result, tmp_path / "out", "a")
    assert report["boxes"][1]["area"] == 20 and report["boxes"][1]["area_mm2"] == 2.5
    assert report["boxes"][1]["longest_diameter_mm"] == pytest.approx(np.hypot(4 * 0.5, 3 * 0.25), abs=1e-3)
    np.testing.assert_allclose(result.volumes, [14 / 8, 20 / 8, 0])
    assert result.unit == "mm2"


def test_low_iou_asks_for_a_look(tmp_path):
    result = picture_result(tmp_path, declared="US", likely=("US", "US", "US"))
    result.segmentation.iou[0] = 0.13
    report = write_results(result, tmp_path / "out", "a")
    assert [entry.get("warning") for entry in report["boxes"]] == ["predicted IoU 0.13: look at this mask", None, None]


def test_saved_by_hand(tmp_path):
    """``Result.save``, in another format than the image's."""
    result, out = picture_result(tmp_path), tmp_path / "out"
    report = result.save(out, format="tiff")
    assert names(out) == ["a.json", "a_mask.tif", "a_overlay.png"] and report["mask_format"] == "tiff"
    np.testing.assert_array_equal(result.labels, result.segmentation.labels)
    assert [mask.sum() for mask in result.masks] == [20, 20, 0] and len(result.masks) == 3


def test_a_finished_mask_is_not_lost(tmp_path, monkeypatch, caplog):
    """The format fails although it seemed suitable."""

    def fails(path, *_):
        raise InputError(path, "header", "nonsense", "sense")

    monkeypatch.setattr(png, "write_mask", fails)
    monkeypatch.setattr(png, "mask_problem", lambda _: "nonsense")
    result, out = picture_result(tmp_path), tmp_path / "out"
    report = write_result(result, out, "a", png)
    assert report["mask_format"] == "tiff" and "header: found nonsense; allowed: sense; the mask is" in caplog.text
    assert names(out) == ["a.json", "a_mask.tif", "a_overlay.png"]
    np.testing.assert_array_equal(tifffile.imread(out / "a_mask.tif"), result.segmentation.labels)


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
    write_results(picture_result(tmp_path), out, "a", separate=True)
    (out / "a_mask_4.png").touch()
    write_results(picture_result(tmp_path), out, "a")
    assert names(out) == ["a.json", "a_mask.png", "a_mask_4.png", "a_overlay.png"]


@pytest.mark.parametrize("fails", ["write_mask", "_write_png", "json"])
@pytest.mark.parametrize("earlier", [False, True])
def test_failed_write_leaves_nothing_half_written(tmp_path, monkeypatch, fails, earlier):
    out = tmp_path / "out"
    if earlier:
        write_results(picture_result(tmp_path), out, "a")

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    if fails == "json":
        real = atomic_write.write_whole

        def last_fails(path, write):
            return real(path, lambda file: (write(file), full() if path.suffix == ".json" else None))

        monkeypatch.setattr(result_files, "write_whole", last_fails)
    else:
        monkeypatch.setattr(png if fails == "write_mask" else result_files, fails, full)
    with pytest.raises(OSError, match="No space"):
        write_results(picture_result(tmp_path), out, "a", separate=True)
    assert not is_finished(out, "a", "f1") and not any("mask_" in name or name.startswith(".") for name in names(out))
    monkeypatch.undo()
    write_results(picture_result(tmp_path), out, "a")
    assert names(out) == ["a.json", "a_mask.png", "a_overlay.png"]


def test_disk_full_in_the_middle_of_a_file(tmp_path):
    """A limit on the size of files simulates a full disk: the mask fits, the overlay does not."""
    code = f"""
import resource, signal, sys
sys.path[:0] = {[str(tmp_path), *sys.path]!r}
import numpy as np
from PIL import Image
from custom.images.reading import read_image
from custom.inference.result import Result
from custom.inference.segmenter import Segmentation
noise = np.random.default_rng(0).integers(0, 256, (600, 600), np.uint8)
Image.fromarray(noise).save("a.png")
done = Segmentation(labels=np.zeros((600, 600), np.uint8), masks=None, iou=np.zeros(1), modality=None,
                    probabilities=None, seconds={{}})
result = Result(image=read_image("a.png"), boxes=np.array([[1., 2, 30, 40]]), slices=None, names=("box 1",),
                segmentation=done, model={{}}, seconds={{}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    result.save("out", name="a")
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
