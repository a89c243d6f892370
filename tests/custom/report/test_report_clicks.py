import csv
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from custom.bundle_folder import CONFIGS
from custom.errors import InputError
from custom.handlers import ModalityMetric
from custom.inference.backend import Decoded
from custom.lite_medsam import LITE_MEDSAM, checkpoint_path
from custom.report import clicks as module
from custom.report.clicks import COLUMNS, MAX_SHIFT, clicks, correct, start, validation_slices
from custom.report.clicks_tables import Step, area, markdown, mean_curve, modality_means, number_of_clicks, objects

SIZE = 256  # that of the frame, so that its pixels are the image's
TOP, BOTTOM, LEFT, RIGHT = 50, 90, 100, 160  # of the only object, 60 columns of 40 pixels


class Columns:
    """A backend whose mask has S columns of the object, and S more with each click; the image's second pixel is S."""

    uses_modality, clip_image, crop_size, takes_clicks, click_tokens = False, False, 8, True, False

    def __init__(self):
        self.encoded, self.asked = 0, []

    def encode(self, images):
        self.encoded += len(images)
        return list(images)

    def clip_features(self, image, boxes):
        return None

    def encode_content(self, crops):
        return None

    def decode(self, embedding, prompts, answer=None):
        self.asked.append(prompts)
        count = 0 if prompts.points is None else int((prompts.point_labels >= 0).sum())
        logits = np.full((1, SIZE, SIZE), -1, np.float32)
        logits[0, TOP:BOTTOM, LEFT : min(RIGHT, LEFT + round(255 * float(embedding[0, 0, 1])) * (count + 1))] = 1
        return Decoded(logits, np.array([0.5], np.float32), None)


def write_set(folder: Path) -> Path:
    """Write a prepared set: a volume of a data set that training has, and two pictures of one that it has not."""
    labels = np.zeros((1, SIZE, SIZE), np.uint8)
    labels[0, TOP:BOTTOM, LEFT:RIGHT] = 3
    np.save(folder / "label.npy", labels)
    cases = []
    for name, modality, dataset, step in (
        ("volume", "MR", "old", 10),
        ("picture", "CT", "fresh", 5),
        ("slow", "CT", "fresh", 1),
    ):
        image = np.zeros((1, SIZE, SIZE), np.uint8)
        image[0, 0, :2] = 255, step
        np.save(folder / f"{name}.npy", image)
        case = {"case": name, "modality": modality, "dataset": dataset, "dimension": 3 if dataset == "old" else 2}
        case |= {"image": f"{name}.npy", "label": "label.npy", "shape": [1, SIZE, SIZE], "channels": 1}
        case |= {"spacing": [5.0, 1.0, 0.4] if dataset == "old" else None}
        cases.append(case | {"labels": {"3": "bar"}, "slices": [[0, [3]]]})
    training = [{**cases[0], "case": "before"}]
    index = {"format": "mcp-medsam-prepared", "version": 1, "modalities": ["MR", "CT"]}
    (folder / "dataset.json").write_text(json.dumps({**index, "training": training, "validation": cases}))
    return folder


@pytest.fixture
def items(tmp_path):
    return validation_slices(module.load_dataset(write_set(tmp_path)).validation, 5, 8)


def columns(count):
    """DSC in percent of the first columns of the object."""
    return 200 * count / (count + RIGHT - LEFT)


def step_of(**values):
    made = {"network": "ours", "case": "a", "dataset": "d", "new": False, "modality": "CT", "slice": 0, "label": 1}
    return Step(
        **made | {"start": "box", "clicks": 0, "dsc": 0.0, "nsd": 0.0, "predicted_iou": 0.5, "seconds": 1.0} | values
    )


def test_curves(items):
    backend = Columns()
    found = list(correct(backend, items[0]))
    assert [(row["start"], row["clicks"]) for row in found] == [(s, k) for s in ("box", "click") for k in range(6)]
    expected = [columns(10 * n) for n in (1, 2, 3, 4, 5, 6)] + [columns(10 * n) for n in (2, 3, 4, 5, 6, 6)]
    assert [row["dsc"] for row in found] == pytest.approx(expected)
    assert backend.encoded == 1
    # The first step encodes the slice, and the last one has no error left to click on.
    assert [row["seconds"] is None for row in found] == [True, *[False] * 10, True]
    assert {(row["case"], row["modality"], row["slice"], row["label"]) for row in found} == {("volume", "MR", 0, 3)}


def test_clicks_lie_at_the_centre_of_the_error(items):
    backend = Columns()
    list(correct(backend, items[0], starts=("box",)))
    last = backend.asked[-1]
    # Of 40 rows the 20th is as far from the border as can be; the missing columns begin at 110, 120, ...: as far from
    # the left is their 20th, and where fewer than 39 are left the middle one.
    np.testing.assert_array_equal(last.points[0], [[129, 69], [139, 69], [144, 64], [149, 59], [154, 54]])
    assert last.point_labels.tolist() == [[1, 1, 1, 1, 1]]


def test_click_in_place_of_the_box(items):
    backend = Columns()
    list(correct(backend, items[0], starts=("click",)))
    assert all((prompts.boxes < 0).all() for prompts in backend.asked)
    assert backend.asked[0].points.tolist() == [[[119, 69]]]  # 20 pixels from the left and from above


@pytest.mark.parametrize(("number", "box", "click"), [(0, 5, 5), (1, 9, 8), (2, 20, 19)])
def test_clicks_until_the_target(items, number, box, click):
    found = list(correct(Columns(), items[number], noc=True))
    assert [max(row["clicks"] for row in found if row["start"] == kind) for kind in ("box", "click")] == [box, click]


@pytest.mark.parametrize("metric", ["dsc", "nsd"])
def test_scores_are_those_of_an_evaluation(items, metric):
    steps = [
        step_of(**{k: row[k] for k in ("case", "modality", "label", "start", "clicks", "dsc", "nsd")})
        for item in items
        for row in correct(Columns(), item, starts=("box",))
    ]
    for k, value in enumerate(mean_curve(objects(steps), metric)):
        evaluation = ModalityMetric(metric_fn=metric)
        for item, step in zip(items, (10, 5, 1), strict=True):
            pred = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
            pred[0, TOP:BOTTOM, LEFT : min(RIGHT, LEFT + step * (k + 1))] = True
            evaluation.update([{**item, "pred": pred, "label": item["label"].bool()}])
        assert value == pytest.approx(evaluation.compute())


def test_boxes_are_those_of_an_evaluation():
    config = json.loads((CONFIGS / "train.json").read_text())
    (boxes,) = (
        t for t in config["validate"]["preprocessing"]["transforms"] if t["_target_"] == "custom.transforms.RandBoxd"
    )
    assert boxes["max_shift"] == "@box_shift" and config["box_shift"] == MAX_SHIFT
    assert boxes["seeded_by"] == ["case", "slice"]


@pytest.mark.parametrize(("kind", "first"), [("box", 0), ("click", 1)])
@pytest.mark.parametrize("cap", [5, 20])
def test_number_of_clicks(kind, first, cap):
    rng = np.random.default_rng(0)
    for dsc in rng.uniform(60, 95, size=(200, cap + 1 - first)):
        below = np.maximum.accumulate(dsc) < 85
        assert number_of_clicks(dsc, 85, start=kind, cap=cap) == min(cap, below.sum() + first)
    assert number_of_clicks([84.9, 85.0], 85, start=kind, cap=cap) == 1 + first


def test_area():
    assert area([70] * 6) == pytest.approx(70)
    scores = np.random.default_rng(0).uniform(size=9)
    assert area(scores) == pytest.approx(np.interp(np.linspace(0, 5, 5001), range(6), scores[:6])[:-1].mean(), abs=1e-3)


def test_means():
    rows = [("a", "CT", 0, 1, 10), ("a", "CT", 0, 2, 30), ("a", "CT", 4, 1, 80), ("b", "CT", 0, 1, 100)]
    steps = [
        step_of(case=case, modality=modality, slice=z, label=label, dsc=float(dsc), clicks=k)
        for case, modality, z, label, dsc in [("c", "MR", 0, 1, 25), *rows]
        for k in range(6)
    ]
    means = modality_means(objects(steps), lambda curve: curve[0].dsc)
    assert list(means.items()) == [("CT", 75.0), ("MR", 25.0)]  # ((10 + 30) / 2 + 80) / 2 = 50, (50 + 100) / 2
    assert mean_curve(objects(steps), "dsc") == [50.0] * 6


def test_seconds_are_those_of_clicks():
    steps = [step_of(clicks=k, seconds=s) for k, s in enumerate([9.0, 1.0, 2.0, 3.0, 4.0, None])]
    steps += [replace(step, start="click", seconds=5.0 if step.clicks == 0 else None) for step in steps]
    assert f"| ours | 5 | 3.000 | {np.percentile([1, 2, 3, 4, 5], 95):.3f} |" in markdown(steps)


def table(text, title):
    """The lines of the table under a title, as lists of cells."""
    part = text.split(f"## {title}\n")[1].split("##")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]


def test_command(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(module, "start", lambda path, backend, options: started.append(backend) or Columns())
    weights = write_set(tmp_path) / "weights.pt"
    weights.touch()
    out = tmp_path / "out"
    clicks(f"ours={weights}", f"other={weights}", dataset_dir=str(tmp_path), out=str(out), backend="torch")
    assert started == ["torch", "torch"]
    rows = list(csv.DictReader((out / "clicks.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 * 3 * 2 * 6
    assert {(row["dataset"], row["new"]) for row in rows} == {("old", "0"), ("fresh", "1")}
    text = (out / "clicks.md").read_text()
    new = {(line[0], line[1]): line[2:] for line in table(text, "New data sets")}
    after = [(columns(5 * n) + columns(n)) / 2 for n in (1, 2, 3, 4, 5, 6)]
    assert new["network", "start"][:7] == ["cases", "objects", "DSC 0", "DSC 1", "DSC 3", "DSC 5", "DSC AUC"]
    expected = [after[0], after[1], after[3], after[5], np.mean([np.mean(after[:-1]), np.mean(after[1:])])]
    assert new["ours", "box"][:2] == ["2", "2"]
    assert [float(cell) for cell in new["ours", "box"][2:7]] == pytest.approx(expected, abs=0.006)
    seen = {(line[0], line[1]): dict(zip(new["network", "start"], line[2:], strict=True))
            for line in table(text, "Seen data sets")}  # fmt: skip
    assert seen["other", "box"]["NoC@85 (cap 5)"] == seen["other", "click"]["NoC@85 (cap 5)"] == "4.00"
    assert [line[:3] for line in table(text, "By modality")[2:4]] == [["CT", "ours", "box"], ["CT", "ours", "click"]]
    assert Image.open(BytesIO((out / "clicks.png").read_bytes())).format == "PNG"


def test_some_cases_with_boxes_only(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "start", lambda *_: Columns())
    weights = write_set(tmp_path) / "weights.pt"
    weights.touch()
    out = tmp_path / "out"
    clicks(str(weights), dataset_dir=str(tmp_path), out=str(out), every=2, click_first=False, noc=True)
    rows = list(csv.DictReader((out / "clicks.csv").read_text().splitlines()))
    assert {(row["case"], row["start"]) for row in rows} == {("volume", "box"), ("slow", "box")}
    head, _, line = table((out / "clicks.md").read_text(), "New data sets")
    assert dict(zip(head, line, strict=True))["NoC@90"] == "20.00"


def test_wrong_arguments(tmp_path):
    weights = write_set(tmp_path) / "weights.pt"
    weights.touch()
    with pytest.raises(InputError, match="every"):
        clicks(str(weights), dataset_dir=str(tmp_path), every=0)


def test_weights_without_clicks_take_them_as_tokens():
    options = {"precision": None, "device": "cpu", "clip": "none"}
    weights = checkpoint_path(LITE_MEDSAM)
    backend = start(weights, "torch", options)
    assert backend.takes_clicks and backend.click_tokens
    assert backend.network.prompt_encoder.point_embed.detach().abs().min() > 0
    with pytest.raises(InputError, match="not trained with clicks"):
        start(weights, "openvino", options | {"device": None})
