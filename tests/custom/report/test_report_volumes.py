import csv
import json
from pathlib import Path

import numpy as np
import pytest

from custom.errors import InputError
from custom.inference.label_map import BoxMasks
from custom.inference.segmenter import Segmentation
from custom.lite_medsam import lite_medsam_path
from custom.report import volumes as module
from custom.report.volumes import object_boxes, score, volumes

SHAPE = (5, 64, 48)


def two_objects():
    labels = np.zeros(SHAPE, np.uint16)
    labels[1:4, 10:20, 8:28] = 3
    labels[2:5, 0:8, 30:48] = 700
    return labels


def write_set(folder: Path, dimension: int = 3) -> Path:
    """Write a prepared set with one volume of two bright objects for validation."""
    labels = two_objects()
    np.save(folder / "label.npy", labels)
    np.save(folder / "image.npy", np.where(labels, 200, 30).astype(np.uint8))
    case = {
        "case": "two",
        "modality": "MR",
        "dataset": "cuboids",
        "dimension": dimension,
        "image": "image.npy",
        "label": "label.npy",
        "shape": list(SHAPE),
        "channels": 1,
        "spacing": [3.0, 1.0, 1.0],
        "labels": {"3": "bright", "700": "corner"},
        "slices": [[1, [3]], [2, [3, 700]], [3, [3, 700]], [4, [700]]],
    }
    index = {"format": "mcp-medsam-prepared", "version": 1, "modalities": ["MR"], "training": [], "validation": [case]}
    (folder / "dataset.json").write_text(json.dumps(index))
    return folder


class FillTheBox:
    """Stands for a segmenter: everything inside the box."""

    def __init__(self):
        self.asked = []

    def segment_volume(self, volume, boxes, modality, *, follow):
        self.asked.append((boxes, modality, follow))
        masks = BoxMasks(volume.shape, len(boxes))
        for k, (x0, y0, z0, x1, y1, z1) in enumerate(np.rint(boxes).astype(int)):
            inside = np.ones((y1 - y0 + 1, x1 - x0 + 1), bool)
            for z in range(z0, z1 + 1):
                masks.put(k, z, np.s_[y0 : y1 + 1, x0 : x1 + 1], inside)
        return Segmentation(labels=None, masks=masks, iou=None, modality=modality, probabilities=None, seconds={})


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_boxes(case):
    labels = two_objects()
    ids, boxes = object_boxes(labels, case)
    assert ids == [3, 700]
    for i, box in zip(ids, boxes, strict=True):
        places = np.argwhere(labels == i)[:, ::-1]
        low, high = places.min(0), places.max(0)
        assert (box[[2, 5]] == [low[2], high[2]]).all()
        outwards = np.concatenate([low - box[:3], box[3:] - high])[[0, 1, 3, 4]] * 256 / 64
        assert (outwards >= 0).all() and (outwards <= 5).all()
        assert (box[:2] >= 0).all() and (box[3:5] <= [47, 63]).all()
    np.testing.assert_array_equal(boxes, object_boxes(labels, case)[1])


def test_boxes_differ_between_cases():
    assert len({object_boxes(two_objects(), case)[1].tobytes() for case in "abcdef"}) == 6


def test_scores_of_whole_volumes(tmp_path):
    (case,) = module.load_dataset(write_set(tmp_path)).validation
    segmenter = FillTheBox()
    score(segmenter, [case], tmp_path / "out", follow=False)
    ((boxes, modality, follow),) = segmenter.asked
    assert (modality, follow) == ("MR", False)
    sides = np.rint(boxes[:, 3:]) - np.rint(boxes[:, :3]) + 1
    true = np.array([3 * 10 * 20, 3 * 8 * 18])
    expected = 100 * np.mean(2 * true / (true + sides.prod(axis=1)))
    (row,) = csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines())
    assert (row["case"], row["modality"], row["n_masks"]) == ("two", "MR", "2")
    assert float(row["dsc"]) == pytest.approx(expected, abs=1e-4)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["mean"]["dsc"] == pytest.approx(expected)


def test_command(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(module, "BoxSegmenter", lambda *args, **kwargs: started.append((args, kwargs)) or FillTheBox())
    weights = str(lite_medsam_path())
    volumes(f"lite={weights}", dataset_dir=str(write_set(tmp_path)), out=str(tmp_path / "out"))
    (((backend,), options),) = started
    assert options == {"keep_masks": True} and not backend.uses_modality
    assert (tmp_path / "out" / "lite" / "cases.csv").is_file()


def test_set_without_volumes(tmp_path):
    with pytest.raises(InputError, match="no volume"):
        volumes(str(lite_medsam_path()), dataset_dir=str(write_set(tmp_path, dimension=2)))
