"""A new format is its module: the command line, the bundle, the label app, scores and data_prep can use it at once."""

import json
import sys

import numpy as np
import pytest

from custom import read_image, segment
from custom.images import formats
from custom.inference import predictor as inference
from custom.inference.monai_inferer import BoxDataset
from custom.label_app.image_cache import ImageCache
from custom.score import score
from data_prep.pipeline import prepare
from data_prep.readers.manifest import ManifestReader

MODULE = '''
"""Pictures as lines of numbers."""

import numpy as np

from custom.images.decoding import as_label, no_choice
from custom.images.image import Image

ENDINGS = (".toy",)
DESCRIPTION = "toy pictures (.toy)"
MASK = "toy"


def recognises(path):
    return path.lower().endswith(ENDINGS)


def read(path, *, frame=None, series=None, labels=False):
    no_choice(path, frame=frame, series=series)
    values = np.loadtxt(path, dtype=np.int64, ndmin=2)[None]
    return Image(path=path, format="toy", array=as_label(values, path) if labels else values, kind="picture")


def mask_ending(image):
    return ".toy"


def mask_problem(image):
    return "a volume" if image.kind == "volume" else None


def write_mask(path, labels, names, image):
    np.savetxt(path, image.to_zyx(labels), fmt="%d")
'''
PICTURE = np.zeros((20, 30), np.int64)
PICTURE[4:9, 6:15] = 200
BOX = [3, 2, 18, 12]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder with a picture and its mask in the new format, registered while the test runs."""
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "toy.py").write_text(MODULE)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "formats")])
    formats.formats.cache_clear()
    np.savetxt(tmp_path / "a.toy", PICTURE, fmt="%d")
    np.savetxt(tmp_path / "a_mask.toy", PICTURE > 0, fmt="%d")
    yield tmp_path
    sys.modules.pop("custom.images.formats.toy", None)
    formats.formats.cache_clear()


def test_everybody_knows_it(toy, make_backend, make_model, monkeypatch, capsys):
    image = read_image(toy / "a.toy", modality="US")
    assert image.format == "toy" and image.array.max() == 255
    monkeypatch.setattr(inference, "choose_model", lambda **_: make_model(make_backend()))
    arguments = [
        "segment",
        str(toy / "a.toy"),
        "--boxes",
        *map(str, BOX),
        "--modality",
        "US",
        "--out",
        str(toy / "out"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    segment.main()
    np.testing.assert_array_equal(np.loadtxt(toy / "out" / "a_mask.toy"), PICTURE > 0)
    monkeypatch.setattr(sys, "argv", [*arguments[:-1], str(toy / "other"), "--format", "nrrd"])
    segment.main()
    assert (toy / "other" / "a_mask.nrrd").is_file()

    score(str(toy / "out" / "a_mask.toy"), str(toy / "a_mask.toy"))
    assert "1.0000" in capsys.readouterr().out
    assert ImageCache(10**6).read(toy / "a.toy", None).size == (30, 20)
    (toy / "boxes.json").write_text(json.dumps([{"image": "a.toy", "boxes": [BOX]}]))
    (item,) = BoxDataset(toy, boxes=str(toy / "boxes.json"))
    assert item["image"].shape == (20, 30)

    line = {"image": "a.toy", "label": "a_mask.toy", "modality": "US", "dataset": "toys", "split": "train", "case": "a"}
    (toy / "US").mkdir()
    for name in ("a.toy", "a_mask.toy"):
        (toy / name).rename(toy / "US" / name)
    (toy / "US" / "manifest.jsonl").write_text(json.dumps(line | {"labels": {"1": "toy"}}))
    report = prepare(ManifestReader(toy), toy / "prepared", progress=False, workers=1)
    assert len(report.training) == 1 and not report.skipped
