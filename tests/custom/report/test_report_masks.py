import numpy as np
import pytest
from monai.metrics import compute_dice, compute_iou
from torch import tensor

from custom.errors import InputError
from custom.handlers.mask_report import COLUMNS
from custom.modalities import MODALITIES
from custom.report.masks import read_masks

HEADER = ",".join(COLUMNS)
ROW = ("CT", 0.25, 0.9, 0.5, "US")


def test_read(write_masks):
    masks = read_masks(write_masks([ROW, ("US", 1, 1.2, 0, ""), ("US", 0.1, -1, 1, "US")]))
    ct, us = MODALITIES.index("CT"), MODALITIES.index("US")
    assert {name: len(part) for name, part in masks.by_modality().items()} == {"CT": 1, "US": 2} and len(masks) == 3
    assert masks.predicted.tolist() == [0.9, 1, 0] and masks.true.tolist() == [0.5, 0, 1]
    assert masks.extent.tolist() == [0.25, 1, 0.1]
    assert masks.modality.tolist() == [ct, us, us] and masks.classified.tolist() == [us, -1, us]
    assert masks.where(np.array([False, True, False])).classified.tolist() == [-1]


def test_dice_from_iou(write_masks):
    pred, label = tensor([[[[1.0, 1, 1, 0]]]]), tensor([[[[0.0, 1, 1, 1]]]])
    masks = read_masks(write_masks([("CT", 1, 1, float(compute_iou(pred, label)), "CT")]))
    assert masks.dice == pytest.approx(compute_dice(pred, label).item())


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], HEADER, "masks: found none"),
        ([ROW], HEADER.replace("true_iou", "iou"), "columns: found no true_iou"),
        ([ROW], HEADER.replace("extent", "size"), "columns: found no extent"),
        ([("CT", 0.5, "", 1, "CT")], HEADER, "line 2: predicted_iou: found ''"),
        ([("CT", 0.5, 1, "nan", "CT")], HEADER, "line 2: true_iou"),
        ([("CT", "wide", 1, 1, "CT")], HEADER, "line 2: extent: found 'wide'"),
        ([("CT", 0, 1, 1, "CT")], HEADER, "line 2: extent: found 0.0"),
        ([("CT", 1.5, 1, 1, "CT")], HEADER, "line 2: extent: found 1.5"),
        ([("XX", 0.5, 1, 1, "CT")], HEADER, "XX"),
    ],
)
def test_wrong_file(write_masks, rows, header, message):
    with pytest.raises(InputError, match=message):
        read_masks(write_masks(rows, header))


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="mask_report"):
        read_masks(tmp_path)
