import numpy as np
import torch

from custom.prompts import Prompts


def test_absent_by_default():
    assert Prompts() == Prompts(*[None] * 12) and not Prompts().correcting


def test_clicks_and_masks_correct_and_boxes_do_not():
    assert Prompts(points=np.zeros((1, 1, 2)), point_labels=np.ones((1, 1))).correcting
    assert Prompts(masks=np.zeros((1, 256, 256))).correcting
    assert not Prompts(boxes=np.zeros((1, 4)), views=np.zeros((1, 3, 8, 8)), modality=3).correcting


def test_map_leaves_what_is_absent():
    prompts = Prompts(boxes=torch.ones(2, 4), modality=torch.tensor([1, 2]))
    found = prompts.map(lambda value: value[:1] + 1)
    assert torch.equal(found.boxes, torch.full((1, 4), 2.0)) and found.modality.tolist() == [2]
    assert found._replace(boxes=None, modality=None) == Prompts()
