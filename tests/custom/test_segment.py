import json
import sys

import numpy as np
import pytest
from skimage import data, io

from custom import segment as program
from custom.modalities import MODALITIES


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


def test_fundus_picture(run, tmp_path):
    """The optic disc of a real picture, with LiteMedSAM's weights alone: encoder, decoder and files in one go."""
    retina = data.retina()  # comes with scikit-image
    io.imsave(tmp_path / "eye.png", retina[300:900:2, 100:1000:2], check_contrast=False)
    height, width = 300, 450
    out = tmp_path / "new" / "out"
    arguments = ["--boxes", "[[20,130,90,230],[200,100,260,160]]", "--modality", "fundus", "--out", out]
    code, printed, _ = run(tmp_path / "eye.png", *arguments, "--checkpoint", "lite_medsam", "--clip", "none")
    assert code == 0 and printed.strip() == str(out / "eye_overlay.png")
    assert sorted(path.name for path in out.iterdir()) == ["eye.json", "eye_mask.png", "eye_overlay.png"]

    mask, overlay = io.imread(out / "eye_mask.png"), io.imread(out / "eye_overlay.png")
    assert mask.shape == (height, width) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2}
    assert overlay.shape == (height, width, 3)
    report = json.loads((out / "eye.json").read_text())
    assert report["image"] == str(tmp_path / "eye.png") and report["modality"] == "Fundus"
    assert [entry["box"] for entry in report["boxes"]] == [[20, 130, 90, 230], [200, 100, 260, 160]]
    for k, entry in enumerate(report["boxes"], start=1):
        assert entry["area"] == (mask == k).sum() and 0 <= entry["iou"] <= 1.1
        assert entry["likely_modality"] in MODALITIES and 0 < entry["probability"] <= 1
    assert report["boxes"][0]["area"] > 500


@pytest.fixture
def grey(tmp_path):
    io.imsave(tmp_path / "grey.png", np.full((20, 30), 7, np.uint8), check_contrast=False)
    return tmp_path / "grey.png"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--boxes": "[[8,2,1,9]]"}, "grey.png: boxes[0]: found [8, 2, 1, 9]; allowed: x_min < x_max"),
        ({"--boxes": "[0,0,30,9]"}, "boxes[0]: found [0, 0, 30, 9]; allowed: inside the image: x 0 to 29, y 0 to 19"),
        ({"--boxes": "[1,2,3]"}, "boxes: found shape (1, 3)"),
        ({"--boxes": "here"}, "boxes: found 'here'"),
        ({"--modality": "SPECT"}, "--modality: modality: found 'SPECT'; allowed: CT, MR"),
        ({"--checkpoint": "none.pt"}, "none.pt: checkpoint: found no file"),
        ({"--clip": "/no/folder"}, "clip: /no/folder: found no folder /no/folder"),
    ],
)
def test_bad_arguments(run, grey, tmp_path, options, message):
    defaults = {"--boxes": "[1,2,8,9]", "--out": str(tmp_path / "out"), "--checkpoint": "lite_medsam", "--clip": "none"}
    code, printed, error = run(grey, *(part for pair in (defaults | options).items() for part in pair))
    assert code == 1 and not printed and error.startswith("error: ") and error.count("\n") == 1
    assert message in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "image: found no file"),
        ("text.png", b"no picture\n", "allowed: a PNG, JPEG, TIFF or BMP picture"),
        ("deep.png", np.full((9, 9), 4000, np.uint16), "image: found uint16 values 4000 to 4000; allowed: grey values"),
        ("stack.tif", np.zeros((5, 9, 9), np.uint8), "image: found shape (5, 9, 9); allowed: HxW or HxWx3"),
    ],
)
def test_bad_picture(run, tmp_path, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        io.imsave(tmp_path / name, content, check_contrast=False)
    code, _, error = run(tmp_path / name, "--boxes", "[1,2,8,8]", "--out", tmp_path / "out")
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1 and message in error


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_read_picture(tmp_path, channels):
    shape = (9, 11) if channels is None else (9, 11, channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    io.imsave(tmp_path / "a.png", pixels, check_contrast=False)
    np.testing.assert_array_equal(
        program.read_picture(str(tmp_path / "a.png")), pixels[..., :3] if channels else pixels
    )


def test_out_is_a_file(run, grey, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "start_network", lambda *_: None)
    monkeypatch.setattr(program.BoxSegmenter, "segment_picture", lambda *_: None)
    (tmp_path / "out").touch()
    code, _, error = run(grey, "--boxes", "[1,2,8,9]", "--out", tmp_path / "out")
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1
