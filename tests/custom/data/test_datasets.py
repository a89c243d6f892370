import numpy as np
import pytest
import torch
from monai.transforms import Compose

from custom.data.datasets import MaskDataset, SliceDataset, slice_item
from custom.data.prepared import CaseRecord
from custom.modalities import MODALITIES
from custom.transforms import LoadSliced, PickMasksd

MASKS = Compose([LoadSliced(["image", "label"]), PickMasksd("label")])


def record(name, slices, modality="CT", spacing=None):
    """A case without array files."""
    files = {"image": f"/data/{name}.image.npy", "label": f"/data/{name}.label.npy"}
    shape, labels = (100, 8, 8), {i: "object" for _, ids in slices for i in ids}
    kind = {"modality": modality, "dataset": "Set", "dimension": 3, "channels": 1, "spacing": spacing}
    return CaseRecord(case=name, shape=shape, labels=labels, slices=tuple(slices), **files, **kind)


def test_every_mask_is_an_item():
    cases = [record("a", [(3, (1,)), (5, (1, 2))]), record("b", [(0, (9,))], "OCT")]
    dataset = MaskDataset(cases)
    found = [(item["case"], item["slice"], item["label_ids"]) for item in dataset]
    assert found == [("a", 3, [1]), ("a", 5, [1]), ("a", 5, [2]), ("b", 0, [9])] and len(dataset) == 4


@pytest.mark.parametrize("spacing", [None, (5.0, 0.7, 0.8)])
def test_item(spacing):
    item = slice_item(record("a", [(3, (1, 2))], "PET", spacing), 3, (1, 2))
    np.testing.assert_array_equal(item.pop("spacing"), np.array(spacing or (1, 1, 1), np.float32))
    assert item == {
        "image": "/data/a.image.npy",
        "label": "/data/a.label.npy",
        "case": "a",
        "slice": 3,
        "label_ids": [1, 2],
        "modality": "PET",
        "modality_index": 4,
        "dimension": 3,
    }


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (10, 5, [1, 3, 5, 7, 9]), (99, 3, [16, 49, 82]), (7, 1, [3])],
)
def test_slices_are_spread(count, most, expected):
    case = record("a", [(z + 20, (1,)) for z in range(count)])
    dataset = SliceDataset([case], max_slices=most)
    assert [item["slice"] - 20 for item in dataset] == expected


def test_masks_of_a_slice_are_drawn_once():
    ids = tuple(range(1, 41))
    cases = [record("a", [(0, ids), (1, ids)]), record("b", [(0, (5, 8))])]
    first, again = (SliceDataset(part, max_masks=8) for part in (cases, cases[::-1]))
    drawn = {(item["case"], item["slice"]): item["label_ids"] for item in first}
    assert drawn == {(item["case"], item["slice"]): item["label_ids"] for item in again}
    assert drawn["b", 0] == [5, 8] and drawn["a", 0] != drawn["a", 1]
    for chosen in (drawn["a", 0], drawn["a", 1]):
        assert len(set(chosen)) == 8 and set(chosen) <= set(ids) and chosen == sorted(chosen)
    assert drawn["a", 0] == [4, 12, 13, 15, 17, 18, 22, 40]  # on every machine


def test_no_item_of_the_phantoms_is_empty(prepared_demo):
    training = MaskDataset(prepared_demo.training, MASKS)
    assert {training.data[training.table.locate(i)[0]].modality for i in range(len(training))} == set(MODALITIES)
    for i in range(0, len(training), 5):
        item = training[i]
        assert item["label"].shape == (1, *item["image"].shape[1:]) and item["label"].any()
        assert item["image"].shape[0] == 3 and item["image"].dtype == torch.uint8


def test_evaluation_of_the_phantoms(prepared_demo):
    dataset = SliceDataset(prepared_demo.validation, MASKS, max_slices=2, max_masks=3)
    per_case = {}
    for item in dataset:
        assert 1 <= len(item["label"]) <= 3 and item["label"].flatten(1).any(dim=1).all()
        per_case[item["case"]] = per_case.get(item["case"], 0) + 1
    assert per_case.keys() == {case.case for case in prepared_demo.validation} and max(per_case.values()) == 2
