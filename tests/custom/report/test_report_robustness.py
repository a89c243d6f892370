import csv
import json
import sys

import pytest
from monai.bundle import ConfigParser

from custom import bundle_run
from custom.bundle_folder import CONFIGS
from custom.errors import InputError
from custom.report.robustness import Point, boxes_config, curves, points, robustness

# Stands for "python -m monai.bundle run": scores that show the boxes, and a line for each call.
PROGRAM = """
import json, sys
from pathlib import Path
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
out = Path(options["--output_dir"])
(boxes,) = json.loads((out / "boxes.json").read_text()).values()
with (out.parent.parent / "calls").open("a") as file:
    file.write(f"{out.name} {options['--clip']}\\n")
if options["--clip"] == "broken":
    sys.exit("no such clip")
(out / "summary.json").write_text(json.dumps({"mean": {"dsc": 90 - boxes["shift"] - 100 * boxes["scale"], "nsd": 80}}))
"""


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """Replace the bundle's command; return the folders and two checkpoints."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(bundle_run, "COMMAND", (sys.executable, str(tmp_path / "program.py")))
    files = [tmp_path / f"{name}.pt" for name in ("one", "two")]
    for file in files:
        file.write_bytes(b"weights")
    return tmp_path / "out", [str(file) for file in files]


def test_points_are_evaluated_once_each():
    titles = [point.title for point in points("a", None)]
    assert titles == ["tight", *(f"shifted_{n}" for n in (5, 10, 20)), *(f"enlarged_{n}" for n in (10, 20, 30, 50))]


def test_curves_begin_at_the_tight_box():
    scores = {point: {"dsc": float(i), "nsd": 0.0} for i, point in enumerate(points("a", None))}
    rows = [(row["boxes"], row["value"], row["dsc"]) for row in curves(scores)]
    shifts = [("shift", value, i) for i, value in enumerate((0, 5, 10, 20))]
    assert rows == [*shifts, ("enlargement", 0, 0), *(("enlargement", v, i) for i, v in enumerate((10, 20, 30, 50), 4))]


@pytest.mark.parametrize(("shift", "enlargement"), [(0, 0), (10, 0), (0, 30)])
def test_config_replaces_the_random_boxes_of_the_validation(shift, enlargement):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "evaluate.json")])
    before = [step["_target_"] for step in parser.config["validate"]["preprocessing"]["transforms"]]
    training = [step["_target_"] for step in parser.config["train"]["preprocessing"]["transforms"]]
    parser.update(boxes_config(Point("a", None, shift, enlargement)))
    steps = parser.config["validate"]["preprocessing"]["transforms"]
    boxes = next(step for step in steps if step["_target_"] == "custom.transforms.Boxd")
    assert boxes == {
        "_target_": "custom.transforms.Boxd",
        "keys": "label",
        "shift": shift,
        "scale": enlargement / 100,
    }
    assert [step["_target_"].replace(".Boxd", ".RandBoxd") for step in steps] == before
    assert [step["_target_"] for step in parser.config["train"]["preprocessing"]["transforms"]] == training


def test_files_and_carrying_on(bundle, capsys):
    out, (one, two) = bundle
    robustness(one, dataset_dir="D", out=str(out), clip="none")
    assert len((out / "calls").read_text().splitlines()) == 8
    robustness(one, f"second={two}", dataset_dir="D", out=str(out), clip="none", device="cpu")
    assert len((out / "calls").read_text().splitlines()) == 16  # those of the first are known
    assert capsys.readouterr().out.count("(known)") == 8
    with (out / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["checkpoint"] for row in rows] == ["one"] * 9 + ["second"] * 9
    assert [float(row["dsc"]) for row in rows[:9]] == [90, 85, 80, 70, 90, 80, 70, 60, 40]
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
    (out / "one" / "shifted_5" / "summary.json").unlink()
    robustness(one, dataset_dir="D", out=str(out), clip="none")
    assert (out / "calls").read_text().splitlines()[16:] == ["shifted_5 none"]


def test_a_failed_point_is_named(bundle):
    out, (one, _) = bundle
    with pytest.raises(bundle_run.BundleError, match="one, tight: evaluating ended with code 1: no such clip"):
        robustness(one, dataset_dir="D", out=str(out), clip="broken")


@pytest.mark.parametrize("change", ["val_slices", "dataset", "weights"])
def test_other_settings_are_refused(bundle, change, tmp_path):
    out, (one, _) = bundle
    robustness(one, dataset_dir="D", out=str(out), clip="none")
    options = {"dataset_dir": "E" if change == "dataset" else "D", "clip": "none"}
    if change == "weights":
        (tmp_path / "one.pt").write_bytes(b"other weights")
    with pytest.raises(InputError, match="another --out"):
        robustness(one, out=str(out), **options, **({"val_slices": 1} if change == "val_slices" else {}))
    assert json.loads((out / "one" / "tight" / "settings.json").read_text())["clip"] == "none"


@pytest.mark.parametrize(
    ("checkpoints", "options", "message"),
    [
        (["none.pt"], {}, "none.pt"),
        ([], {}, "found none"),
        (["{one}", "{one}"], {}, "a name for each that differs"),
        (["{one}"], {"output_dir": "x"}, "--output_dir"),
        (["{one}"], {"val_slice": 1}, "--val_slice: found a key that cannot be set here; allowed: val_slices"),
    ],
)
def test_wrong_arguments(bundle, checkpoints, options, message):
    out, (one, _) = bundle
    with pytest.raises(InputError, match=message):
        robustness(*(text.format(one=one) for text in checkpoints), dataset_dir="D", out=str(out), **options)
