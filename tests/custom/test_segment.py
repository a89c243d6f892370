import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from skimage import data

from custom import segment as program
from custom.inference import predictor as inference
from custom.inference import result_files
from custom.modalities import MODALITIES
from custom.version import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; returns its exit code (0, 1 or 2) and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["custom.segment", *map(str, arguments)])
        code = 0
        try:
            program.main()
        except SystemExit as stop:  # Python prints a text and exits with 1
            code = 1 if isinstance(stop.code, str) else stop.code or 0
            sys.stderr.write(f"{stop.code}\n" if isinstance(stop.code, str) else "")
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def fake(monkeypatch, make_backend, make_model):
    """Replace the network by a fake, which is returned."""
    backend = make_backend()
    monkeypatch.setattr(inference, "choose_model", lambda **_: make_model(backend))
    return backend


@pytest.fixture
def grey(tmp_path):
    pixels = np.full((20, 30), 7, np.uint8)
    pixels[4:8, 5:11] = 200
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    return tmp_path / "grey.png"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fundus_picture(run, tmp_path):
    """The optic disc of a real picture, with LiteMedSAM's weights only: encoder, decoder and files in one run."""
    retina = data.retina()  # comes with scikit-image
    Image.fromarray(retina[300:900:2, 100:1000:2]).save(tmp_path / "eye.png")
    height, width = 300, 450
    out = tmp_path / "new" / "out"
    arguments = ["--boxes", "[[20,130,90,230],[200,100,260,160]]", "--modality", "fundus", "--out", out]
    code, printed, _ = run(tmp_path / "eye.png", *arguments, "--checkpoint", "lite_medsam", "--backend", "torch")
    assert code == 0 and printed.endswith(f"{out}: eye_mask.png, eye_overlay.png, eye.json\n")
    assert [line.split()[0] for line in printed.splitlines()] == ["object", "box", "box", f"{out}:"]
    assert names(out) == ["eye.json", "eye_mask.png", "eye_overlay.png"]

    mask, overlay = np.asarray(Image.open(out / "eye_mask.png")), np.asarray(Image.open(out / "eye_overlay.png"))
    assert mask.shape == (height, width) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2}
    assert overlay.shape == (2 * height, 2 * width, 3)  # enlarged, so that it can be seen
    report = json.loads((out / "eye.json").read_text())
    assert report["image"] == str(tmp_path / "eye.png") and report["size"] == [width, height]
    assert (report["modality"], report["modality_source"]) == ("Fundus", "argument")
    assert [entry["box"] for entry in report["boxes"]] == [[20, 130, 90, 230], [200, 100, 260, 160]]
    for k, entry in enumerate(report["boxes"], start=1):
        assert entry["area"] == (mask == k).sum() and 0 <= entry["iou"] <= 1.1
        assert "predicted_modality" not in entry  # LiteMedSAM has no modalities
    assert report["boxes"][0]["area"] > 500
    assert report["model"]["backend"] == "torch" and report["model"]["checkpoint"] == "lite_medsam"


def test_real_network_on_a_volume(run, tmp_path):
    """A bright ball through three slices, as NIfTI with other axes, with the real encoder and decoder."""
    z, y, x = np.mgrid[:3, :60, :80]
    ball = ((x - 40) ** 2 + (y - 30) ** 2 < (18 - 3 * abs(z - 1)) ** 2).transpose(2, 1, 0)
    affine = np.diag([-1.0, -1, 4, 1])
    nib.save(nib.Nifti1Image((ball * 900 + 50).astype(np.int16), affine), tmp_path / "3D_MR_ball.nii.gz")
    arguments = ["--boxes", "[20,10,0,60,50,2]", "--out", tmp_path / "out", "--overlap", "smaller"]
    code, _, error = run(
        tmp_path / "3D_MR_ball.nii.gz", *arguments, "--checkpoint", "lite_medsam", "--backend", "torch"
    )
    assert code == 0, error
    found = nib.load(tmp_path / "out" / "3D_MR_ball_mask.nii.gz")
    np.testing.assert_allclose(found.affine, affine)
    mask = np.asarray(found.dataobj) > 0
    assert 2 * (mask & ball).sum() / (mask.sum() + ball.sum()) > 0.9


def test_options_reach_the_pipeline(run, grey, tmp_path, fake):
    options = ["--separate", "True", "--overlap", "last", "--ct_window", "40,350", "--suv_max", "7"]
    code, _, error = run(grey, "--boxes", "[2,2,12,10]", "--modality", "us", "--out", tmp_path / "out", *options)
    assert code == 0, error
    assert names(tmp_path / "out") == ["grey.json", "grey_mask_1.png", "grey_overlay.png"]
    report = json.loads((tmp_path / "out" / "grey.json").read_text())
    window = {"level": 40.0, "width": 350.0}
    expected = {"window": window, "suv_max": 7, "overlap": "last", "separate": True, "follow": True}
    assert expected.items() <= report["options"].items() and fake.decoded[0].modality == MODALITIES.index("US")


def test_folder_and_list(run, grey, tmp_path, fake):
    (tmp_path / "list.json").write_text(json.dumps([{"image": "grey.png", "boxes": [[2, 2, 12, 10]]}]))
    code, printed, _ = run(tmp_path / "list.json", "--out", tmp_path / "out")
    assert code == 0 and printed == f"1 written, 0 there before, 0 failed: {tmp_path / 'out'}\n"
    code, printed, _ = run(tmp_path / "list.json", "--out", tmp_path / "out")
    assert code == 0 and printed.startswith("0 written, 1 there before")

    folder = tmp_path / "in"
    folder.mkdir()
    grey.rename(folder / "grey.png")
    (folder / "bad.npz").write_bytes(b"no npz")
    np.savez(folder / "2D_US_1.npz", imgs=np.zeros((9, 9), np.uint8), boxes=[[1, 1, 5, 5]])
    code, printed, error = run(folder, "--out", tmp_path / "out")
    assert code == 1 and "1 written, 0 there before, 2 failed" in printed
    assert printed.count("failed") == 1 and error.count("failed: ") == 2  # each failure once
    assert "grey.png: boxes: found no boxes" in error and "bad.npz: file: found" in error


def test_processes_take_shares(run, tmp_path, fake, monkeypatch):
    for name in "abcd":
        np.savez(tmp_path / f"2D_US_{name}.npz", imgs=np.zeros((9, 9), np.uint8), boxes=[[1, 1, 5, 5]])
    (tmp_path / "2D_US_b.npz").write_bytes(b"no npz")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in ((0, ["2D_US_a", "2D_US_c"]), (1, ["2D_US_d"])):
        monkeypatch.setenv("RANK", str(rank))
        code, _, _ = run(tmp_path, "--out", tmp_path / "out")
        assert code == 0  # torchrun would stop the other process
        report = json.loads((tmp_path / "out" / f"report_{rank}.json").read_text())
        assert report["written"] == expected and len(report["failed"]) == rank


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--boxes": "[[8,2,1,9]]"}, "arguments: boxes[0]: found [8, 2, 1, 9]; allowed: x_min <= x_max"),
        ({"--boxes": "[0,0,30,9]"}, "boxes[0]: found [0, 0, 30, 9]; allowed: inside the image: x 0 to 29, y 0 to 19"),
        ({"--boxes": "[1,2,3]"}, "arguments: boxes"),
        ({"--boxes": "[1,2,0,8,9,0]"}, "boxes: found 6 numbers per box for a picture"),
        ({"--boxes": "[]"}, "boxes: found []"),
        ({"--boxes": "here"}, "boxes: found 'here'"),
        ({"--boxes": "None"}, "boxes: found no boxes; allowed: --boxes"),
        ({"--modality": "SPECT"}, "--modality: modality: found 'SPECT'; allowed: CT, MR"),
        ({"--checkpoint": "none.pt"}, "none.pt: checkpoint: found no file"),
        ({"--backend": "jax"}, "arguments: backend: found 'jax'; allowed: auto, torch, openvino"),
        ({"--overlap": "first"}, "arguments: overlap: found 'first'; allowed: logit, smaller, last"),
        ({"--separate": "yes"}, "arguments: --separate: found 'yes'; allowed: True, False"),
        ({"--suv_max": "0"}, "arguments: suv_max: found 0; allowed: a positive number"),
        ({"--ct_window": "heart"}, "arguments: ct_window: found 'heart'"),
    ],
)
def test_bad_arguments(run, grey, tmp_path, options, message):
    defaults = {
        "--boxes": "[1,2,8,9]",
        "--out": str(tmp_path / "out"),
        "--checkpoint": "lite_medsam",
        "--backend": "torch",
    }
    code, printed, error = run(grey, *(part for pair in (defaults | options).items() for part in pair))
    assert code == 1 and not printed and error.startswith("error: ") and error.count("\n") == 1
    assert message in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "image: found no such file"),
        ("text.png", b"no picture\n", "allowed: a readable picture"),
        ("text.txt", b"no picture\n", "image: found a file of another kind; allowed: DICOM"),
    ],
)
def test_bad_picture(run, tmp_path, fake, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, error = run(tmp_path / name, "--boxes", "[1,2,8,8]", "--out", tmp_path / "out")
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_out_is_a_file(run, grey, tmp_path, fake):
    (tmp_path / "out").touch()
    code, _, error = run(grey, "--boxes", "[1,2,8,9]", "--out", tmp_path / "out")
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1


def test_no_permission(run, grey, tmp_path, fake, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "grey_overlay.png")

    monkeypatch.setattr(result_files, "_write_png", refuse)
    code, _, error = run(grey, "--boxes", "[1,2,8,9]", "--out", tmp_path / "out")
    assert code == 1 and error == "error: [Errno 13] Permission denied: 'grey_overlay.png'\n"
    assert names(tmp_path / "out") == []


def test_stopped_by_hand(run, grey, tmp_path, fake):
    def stop(*_):
        raise KeyboardInterrupt

    fake.decode = stop
    code, _, error = run(grey, "--boxes", "[1,2,8,9]", "--out", tmp_path / "out")
    assert code == 130 and error == "stopped; the same command carries on from here\n"
    assert not (tmp_path / "out").exists()


def test_openvino_needs_no_torch(grey, tmp_path):
    """The whole command in its own process; only the exported graphs are replaced."""
    pytest.importorskip("openvino")
    np.savez(tmp_path / "3D_CT_1.npz", imgs=np.zeros((3, 9, 9), np.uint8), boxes=[[1, 1, 0, 5, 5, 2]])
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 3), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    entries = [("grey.png", [[1, 2, 8, 9]]), ("3D_CT_1.npz", None), ("a.nii.gz", [[1, 1, 0, 5, 5, 2]])]
    entries = [{"image": image, "boxes": boxes, "modality": "CT"} for image, boxes in entries]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    code = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
import custom.inference.openvino_backend, custom.inference.predictor
from custom import segment as program
conftest = runpy.run_path({str(Path(__file__).with_name("conftest.py"))!r})
custom.inference.predictor.choose_model = lambda **_: conftest["fake_model"](conftest["FakeBackend"]())
sys.argv = ["segment", "list.json", "--out", "out", "--backend", "openvino", "--model", "exported"]
program.main()
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "monai", "torchvision", "timm"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "3 written, 0 there before, 0 failed: out\n[]\n", (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "none"], "none: model: found "),
        (["--model", "none", "--device", "cuda"], "arguments: device: found 'cuda'"),
    ],
)
def test_bad_exported_model(run, grey, tmp_path, options, message):
    code, _, error = run(grey, "--boxes", "[1,2,8,9]", "--out", tmp_path / "out", "--backend", "openvino", *options)
    assert code == 1 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "f16"], "arguments: precision: found 'f16'; allowed: f32, bf16"),
        (["--device", "abacus"], "arguments: device: found 'abacus' ("),
    ],
)
def test_bad_torch_options(run, grey, tmp_path, options, message):
    arguments = ["--boxes", "[1,2,8,9]", "--out", tmp_path / "out", "--checkpoint", "lite_medsam", "--backend", "torch"]
    code, _, error = run(grey, *arguments, *options)
    assert code == 1 and message in error and error.count("\n") == 1


def test_a_mistyped_option_runs_nothing(run, grey, tmp_path, fake):
    code, printed, error = run(grey, "--boxes", "1 2 8 9", "--out", tmp_path / "out", "--modalty", "US")
    assert code == 1 and not printed and error.count("\n") == 1 and "--modalty" in error and "--modality" in error
    assert not fake.encoded and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "boxes",
    [
        (4, 3, 12, 9),
        ("4 3 12 9",),
        ("4,3,12,9",),
        ("[4,3,12,9]",),
        ("[[4,3,12,9]]",),
    ],
)
def test_ways_to_write_a_box(run, grey, tmp_path, fake, boxes):
    code, _, error = run(grey, "--boxes", *boxes, "--modality", "US", "--out", tmp_path / "out")
    assert code == 0, error
    assert json.loads((tmp_path / "out" / "grey.json").read_text())["boxes"][0]["box"] == [4, 3, 12, 9]


def test_the_boxes_of_an_existing_mask_with_names(run, grey, tmp_path, fake):
    mask = np.zeros((20, 30), np.uint8)
    mask[4:8, 5:11], mask[12:15, 20:26] = 1, 2
    Image.fromarray(mask).save(tmp_path / "drawn.png")
    options = ["--boxes", tmp_path / "drawn.png", "--margin", 1, "--names", "cyst,nerve", "--modality", "US"]
    code, printed, error = run(grey, *options, "--out", tmp_path / "out")
    assert code == 0, error
    boxes = json.loads((tmp_path / "out" / "grey.json").read_text())["boxes"]
    assert [(entry["name"], entry["box"]) for entry in boxes] == [("cyst", [4, 3, 11, 8]), ("nerve", [19, 11, 26, 15])]
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["cyst", "nerve"]


def test_one_box_for_a_folder(run, grey, tmp_path, fake):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(grey.read_bytes())
    code, printed, _ = run(folder, "--boxes", "4 3 12 9", "--modality", "US", "--out", tmp_path / "out")
    assert code == 0 and printed.startswith("2 written")


def test_a_table_of_boxes_and_another_format(run, grey, tmp_path, fake):
    rows = ["image,x_min,y_min,x_max,y_max,modality,name", "grey.png,4,3,12,9,MRT,cyst", "grey.png,2,2,9,9,MRT,nerve"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    code, printed, error = run(tmp_path / "boxes.csv", "--format", "nrrd", "--out", tmp_path / "out")
    assert code == 0 and printed.startswith("1 written"), error
    report = json.loads((tmp_path / "out" / "grey.json").read_text())
    assert report["modality"] == "MR" and [entry["name"] for entry in report["boxes"]] == ["cyst", "nerve"]
    assert report["files"][0] == "grey_mask.nrrd" and report["mask_format"] == "nrrd"


def test_millimetres_and_one_slice(run, tmp_path, fake):
    values = np.zeros((30, 20, 4), np.uint8)
    values[5:11, 4:8] = 200
    affine = np.diag([-0.5, -0.5, 4, 1])
    affine[:3, 3] = [10, 20, 30]
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "v.nii.gz")
    world = ["--boxes", 4, 15.5, 34, 8, 18.5, 38, "--world", "True", "--modality", "MR"]
    code, _, error = run(tmp_path / "v.nii.gz", *world, "--out", tmp_path / "out")
    assert code == 0, error
    assert json.loads((tmp_path / "out" / "v.json").read_text())["boxes"][0]["box"] == [4, 3, 1, 12, 9, 2]
    options = ["--boxes", 4, 3, 12, 9, "--slice", 2, "--modality", "MR"]
    code, _, error = run(tmp_path / "v.nii.gz", *options, "--out", tmp_path / "slice")
    found = np.asarray(nib.load(tmp_path / "slice" / "v_mask.nii.gz").dataobj)
    assert code == 0 and found.any(axis=(0, 1)).tolist() == [False, False, True, False]


def test_low_iou_and_a_contradicted_modality_warn(run, grey, tmp_path, fake, caplog):
    run(grey, "--boxes", "4 3 12 9", "--modality", "CT", "--out", tmp_path / "out")
    assert "box 1: predicted IoU 0.27: look at this mask; declared CT, but it looks like US" in caplog.text


def test_exif_rotation_is_applied_and_reported(run, grey, tmp_path, fake):
    """A box read off a viewer matches what the viewer shows, and the mask is upright."""
    picture = Image.open(grey)
    exif = picture.getexif()
    exif[274] = 6  # shown turned by 90 degrees clockwise
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    options = ["--boxes", 10, 3, 17, 12, "--modality", "US", "--out", tmp_path / "out"]
    code, _, error = run(tmp_path / "turned.jpg", *options)
    report = json.loads((tmp_path / "out" / "turned.json").read_text())
    assert code == 0 and report["size"] == [20, 30] and report["exif_orientation"] == 6, error
    mask = np.asarray(Image.open(tmp_path / "out" / "turned_mask.png"))
    shown = np.rot90(np.asarray(picture) > 100, -1)
    assert mask.shape == (30, 20) and 2 * (mask[shown].sum()) / (mask.sum() + shown.sum()) > 0.9


def test_version(run):
    code, printed, _ = run("--version")
    assert code == 0 and printed.strip().endswith(__version__)
