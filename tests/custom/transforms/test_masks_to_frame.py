import numpy as np
import pytest
import torch
from skimage.draw import ellipse

from custom.images.frame import Frame
from custom.transforms import masks_to_frame, tight_boxes

SIZES = [(1, 50), (50, 1), (768, 300), (255, 257), (3, 1000), (512, 512), (1, 1), (97, 31)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_mask_becomes_empty(size):
    """Every pixel of the image alone, or a hundred of them."""
    height, width = size
    rng = np.random.default_rng(0)
    pixels = rng.permutation(height * width)[:100]
    masks = torch.zeros(len(pixels), height * width, dtype=torch.uint8)
    masks[torch.arange(len(pixels)), torch.from_numpy(pixels)] = 1
    for part in masks.view(-1, height, width).split(50):
        found = masks_to_frame(part, Frame(height, width))
        assert found.dtype == torch.uint8 and found.shape[1:] == (256, 256) and found.max() == 1
        assert found.flatten(1).any(dim=1).all()
        # and it lies in the box of the pixel, within a pixel
        box, expected = tight_boxes(found), Frame(height, width).boxes_to_frame(tight_boxes(part))
        reach = 1.5 + max(1.0, Frame(height, width).scale) / 2
        assert ((box[:, :2] + box[:, 2:]) / 2 - (expected[:, :2] + expected[:, 2:]) / 2).abs().max() <= reach


@pytest.mark.parametrize("size", [(64, 32), (128, 128), (256, 200)], ids=str)
def test_masks_there_and_back_exactly(size):
    """Where a native pixel is a whole number of frame pixels."""
    masks = torch.rand(4, *size, generator=torch.Generator().manual_seed(0)) > 0.5
    frame = Frame(*size)
    back = torch.from_numpy(frame.logits_to_native(masks_to_frame(masks, frame).numpy() - np.float32(0.5)))
    assert back.shape == masks.shape and torch.equal(back > 0, masks)


@pytest.mark.parametrize("size", [(768, 300), (255, 257), (97, 31), (1200, 1600)], ids=str)
def test_masks_there_and_back(size):
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0][ellipse(size[0] * 0.55, size[1] * 0.4, size[0] * 0.4, size[1] * 0.35, shape=size)] = True
    frame = Frame(*size)
    back = torch.from_numpy(frame.logits_to_native(masks_to_frame(mask, frame).numpy() - np.float32(0.5))[0] > 0)
    assert 2 * (back & mask[0]).sum() / (back.sum() + mask.sum()) > 0.98
