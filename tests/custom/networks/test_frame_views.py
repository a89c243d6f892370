import numpy as np
import pytest
import torch

from custom.clicks import VIEW_SIZE, view_boxes
from custom.networks.frame_views import crop_frame, view_frame
from custom.prompts import NEGATIVE, NO_BOX, NO_POINT, POSITIVE, Prompts

BOXES = torch.tensor([[[40.0, 50, 99, 89], [NO_BOX] * 4]]).expand(2, 2, 4)
POINTS = torch.tensor([[[120.0, 60], [3, 3]], [[30, 140], [45, 45]]]).expand(2, 2, 2, 2)
LABELS = torch.tensor([[NEGATIVE, NO_POINT], [POSITIVE, POSITIVE]]).expand(2, 2, 2)


@pytest.fixture
def seen():
    """Images, and masks that reach from (50, 60) to (79, 69)."""
    masks = torch.full((2, 2, 256, 256), -1.0)
    masks[..., 60:70, 50:80] = 1.0
    return torch.rand(2, 3, 256, 256), masks


def test_crops_are_the_pixels_of_the_boxes():
    image = torch.arange(256.0).expand(1, 3, 256, 256)
    crops = crop_frame(image, torch.tensor([[[8.0, 0, 15, 7], [0, 0, 255, 255]]]), 8)
    assert crops.shape == (1, 2, 3, 8, 8)
    torch.testing.assert_close(crops[0, :, 0, 0], torch.stack([torch.arange(8.0) + 8, torch.arange(8) * 32 + 15.5]))


def test_views_show_the_box_or_the_mask_and_the_clicks(seen):
    image, masks = seen
    prompts = view_frame(image, Prompts(boxes=BOXES, points=POINTS, point_labels=LABELS), masks)
    expected = view_boxes(np.array([[40, 50, 120, 89], [30, 45, 79, 140]], float), (256, 256))
    assert prompts.view_boxes.tolist() == [expected.tolist()] * 2
    assert prompts.views.shape == (2, 2, 3, VIEW_SIZE, VIEW_SIZE)
    torch.testing.assert_close(prompts.views, crop_frame(image, prompts.view_boxes, VIEW_SIZE))
    same = Prompts(boxes=BOXES, points=POINTS[:, 0], point_labels=LABELS[:, 0])  # one value for each image
    (first, _), _ = view_frame(image, same, masks).view_boxes.tolist()
    assert first == expected[0].tolist()


def test_views_stay_inside_what_is_shown(seen):
    image, masks = seen
    masks[:, 1] = -1.0  # nothing was found
    shown = torch.tensor([0.0, 0, 255, 99]).expand(2, 2, 4)
    margins = np.array([[[0.1], [0.5]]] * 2)
    prompts = Prompts(boxes=BOXES, views=torch.zeros(2, 2, 3, 16, 16))
    found = view_frame(image, prompts, masks, shown=shown, margin=margins)
    assert found.views.shape[-1] == 16
    assert found.view_boxes[0].tolist() == [[34, 44, 105, 95], [0, 0, 255, 99]]
