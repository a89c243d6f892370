import json

import pytest

from custom.errors import InputError
from custom.label_app.scores import PredictedIoU
from custom.label_app.training_set import Labelled, write_manifests

IOU = {"a": 0.8, "b": 0.3, "c": 0.6, "d": 0.3}


def estimate(image):
    if image not in IOU:
        raise InputError(image, "image", "nothing", "an image")
    return IOU[image]


@pytest.mark.parametrize(
    ("images", "noted", "expected"),
    [
        ("abcd", {}, ("b", 0.3)),
        ("dcba", {}, ("d", 0.3)),  # the first of equals
        ("ac", {}, ("c", 0.6)),
        ("abc", {"a": 0.1}, ("a", 0.1)),  # what was segmented counts, not the guess
        ("abx", {"b": 0.9}, ("a", 0.8)),  # x cannot be read
        ("x", {}, None),
        ("", {}, None),
    ],
)
def test_lowest_first(images, noted, expected):
    scores = PredictedIoU(estimate)
    for image, iou in noted.items():
        scores.note(image, iou, "weights")
    assert scores.lowest(list(images)) == expected


def test_budget_and_other_weights():
    asked = []
    scores = PredictedIoU(lambda image: asked.append(image) or IOU[image], budget=1)
    assert scores.lowest("acb") == ("a", 0.8)
    assert scores.lowest("acb") == ("c", 0.6)
    assert scores.lowest("acb") == ("b", 0.3) and asked == ["a", "c", "b"]
    scores.use("others")
    assert scores.lowest("ac") == ("a", 0.8) and asked[-1] == "a"


@pytest.mark.parametrize(("count", "validating"), [(1, 1), (2, 1), (5, 1), (6, 2), (11, 3)])
def test_manifests(tmp_path, count, validating):
    pairs = [
        Labelled(name=f"{n:02}", image=tmp_path / "i", label=tmp_path / "l", modality="CT" if n % 2 else "MR")
        for n in range(count)
    ]
    for _ in range(2):
        write_manifests(pairs, tmp_path)
    lines = [json.loads(line) for path in tmp_path.glob("*/manifest.jsonl") for line in path.read_text().splitlines()]
    splits = [line["split"] for line in lines]
    assert splits.count("val") == validating and splits.count("train") == max(1, count - validating)
    assert len({line["case"] for line in lines}) == len(lines)
    assert all((line["modality"] == "CT") == (int(line["case"][:2]) % 2 == 1) for line in lines)
