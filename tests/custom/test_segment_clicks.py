"""Clicks and masks on the command line, with a stand-in for the network."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from custom import segment as program
from custom.inference import predictor as inference


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; returns its exit code (0 or 1) and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["custom.segment", *map(str, arguments)])
        code, line = 0, ""
        try:
            program.main()
        except SystemExit as stop:
            code, line = 1, f"{stop.code}\n"
        captured = capsys.readouterr()
        return code, captured.out, captured.err + line

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


def report_of(folder):
    return json.loads((folder / "grey.json").read_text())


@pytest.mark.parametrize(
    "points", [["--points", "7 5; 12 9 | 20 15"], ["--points", "[[[7, 5], [12, 9]], [[20, 15]]]"]], ids=["text", "JSON"]
)
def test_clicks_without_boxes(run, grey, tmp_path, fake, points):
    code, printed, error = run(grey, *points, "--point_labels", "1 0 | 1", "--names", "a,b", "--out", tmp_path / "out")
    assert code == 0, error
    report = report_of(tmp_path / "out")
    assert [entry["box"] for entry in report["boxes"]] == [None, None]
    assert [entry["points"] for entry in report["boxes"]] == [[[7, 5], [12, 9]], [[20, 15]]]
    assert [entry["point_labels"] for entry in report["boxes"]] == [[1, 0], [1]]
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["a", "b"]
    mask = np.asarray(Image.open(tmp_path / "out" / "grey_mask.png"))
    assert mask[5, 7] == 1 and mask[15, 20] == 2
    overlay = np.asarray(Image.open(tmp_path / "out" / "grey_overlay.png"))
    factor = overlay.shape[0] // 20
    assert overlay[int(5.5 * factor), int(7.5 * factor)].tolist() == [0, 220, 0]
    assert overlay[int(9.5 * factor), int(12.5 * factor)].tolist() == [230, 0, 0]


def test_one_click_as_numbers_corrects_a_box(run, grey, tmp_path, fake):
    arguments = ["--boxes", "2", "2", "12", "10", "--points", "7", "5", "--point_labels", "0", "--separate"]
    code, _, error = run(grey, *arguments, "--out", tmp_path / "out")
    assert code == 0, error
    (entry,) = report_of(tmp_path / "out")["boxes"]
    assert (entry["box"], entry["points"], entry["point_labels"]) == ([2, 2, 12, 10], [[7, 5]], [0])
    assert not np.asarray(Image.open(tmp_path / "out" / "grey_mask_1.png"))[5, 7]


def test_a_mask_is_corrected(run, grey, tmp_path, fake):
    labels = np.zeros((20, 30), np.uint8)
    labels[3:9, 4:12], labels[12:18, 20:28] = 2, 5
    Image.fromarray(labels).save(tmp_path / "old.png")
    arguments = ["--mask", tmp_path / "old.png", "--points", " | 24 15", "--point_labels", " | 0"]
    code, _, error = run(grey, *arguments, "--out", tmp_path / "out")
    assert code == 0, error
    first, second = report_of(tmp_path / "out")["boxes"]
    assert first["corrects_mask"] and second["corrects_mask"] and second["points"] == [[24, 15]]
    assert not np.asarray(Image.open(tmp_path / "out" / "grey_mask.png"))[15, 24]
    code, _, _ = run(grey, "--mask", tmp_path / "old.png", "--out", tmp_path / "alone")
    assert code == 0 and len(report_of(tmp_path / "alone")["boxes"]) == 2


def test_clicks_of_a_list_and_what_is_done_again(run, grey, tmp_path, fake):
    def call(**entry):
        (tmp_path / "list.json").write_text(json.dumps([{"image": "grey.png", **entry}]))
        code, printed, error = run(tmp_path / "list.json", "--out", tmp_path / "out")
        assert code == 0, error
        return printed[0]

    assert [call(points=[[7, 5]]), call(points=[[7, 5]]), call(points=[[7, 6]])] == ["1", "0", "1"]
    assert call(points=[[7, 6]], point_labels=[0]) == "1"


def test_clicks_in_a_volume(run, tmp_path, fake):
    array = np.full((30, 20, 4), 7, np.uint8)
    array[5:11, 4:8] = 200
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2, 3, 1])), tmp_path / "v.nii.gz")
    boxes = ["--boxes", "2 2 0 14 12 3", "--out", tmp_path / "out"]
    code, _, error = run(tmp_path / "v.nii.gz", *boxes, "--points", "7 5 2", "--point_labels", "0")
    assert code == 0, error
    mask = np.asarray(nib.load(tmp_path / "out" / "v_mask.nii.gz").dataobj)
    assert not mask[7, 5, 2] and mask[7, 5, 0]
    world = ["--boxes", "4 4 0 28 24 9", "--world", "--points", "14 10 6", "--point_labels", "0"]
    code, _, error = run(tmp_path / "v.nii.gz", *world, "--out", tmp_path / "mm")
    assert code == 0, error
    (entry,) = json.loads((tmp_path / "mm" / "v.json").read_text())["boxes"]
    assert (entry["box"], entry["points"]) == ([2, 2, 0, 14, 12, 3], [[7, 5, 2]])
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mm" / "v_mask.nii.gz").dataobj), mask)
    one = ["--boxes", "2 2 14 12", "--slice", 2, "--points", "7 5", "--point_labels", "0", "--out", tmp_path / "one"]
    code, _, error = run(tmp_path / "v.nii.gz", *one)
    assert code == 0 and not np.asarray(nib.load(tmp_path / "one" / "v_mask.nii.gz").dataobj)[7, 5, 2], error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--points", "99 5"], "grey.png: points[0][0]: found [99.0, 5.0]; allowed: inside the image: x 0 to 29, y 0"),
        (
            ["--points", "7 5", "--point_labels", "2"],
            "arguments: point_labels[0][0]: found 2; allowed: 1 on the object",
        ),
        (["--points", "7 5", "--point_labels", "1 0"], "arguments: point_labels: found 2 labels; allowed: 1, one for"),
        (["--points", "7 5 3"], "grey.png: points[0][0]: found [7.0, 5.0, 3.0]; allowed: x y"),
        (["--points", "a"], "arguments: points: found 'a'"),
        (["--point_labels", "1"], "arguments: point_labels: found"),
        (["--mask", "none.png"], "arguments: mask: found none.png: no such file"),
        (["--points", "7 5 | 8 5", "--boxes", "2 2 12 10"], "grey.png: points: found 2 objects; allowed: 1, one for"),
        (["--points", "7 5", "--names", "a,b"], "grey.png: names: found 2 names: a, b"),
    ],
)
def test_bad_clicks_before_the_network(run, grey, tmp_path, fake, options, message):
    code, printed, error = run(grey, *options, "--out", tmp_path / "out")
    assert (code, printed, error.count("\n")) == (1, "", 1) and message in error
    assert not fake.encoded and not (tmp_path / "out").exists()


def test_weights_without_clicks(run, grey, tmp_path, fake):
    fake.takes_clicks = False
    code, _, error = run(grey, "--points", "7 5", "--out", tmp_path / "out")
    assert code == 1 and error.count("\n") == 1
    assert "points: found clicks or masks; allowed: boxes, or weights that were trained with clicks" in error
