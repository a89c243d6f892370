import numpy as np
import pytest
import torch
from PIL import Image
from skimage.draw import ellipse

from custom.transforms import Frame, crop_box, resize, tight_boxes

SIZES = [(1, 50), (50, 1), (768, 300), (255, 257), (3, 1000), (512, 512), (1, 1), (97, 31)]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


@every_size
def test_content(size):
    frame = Frame(*size)
    assert max(frame.content) == 256 and min(frame.content) >= 1
    assert abs(frame.content[0] - max(1, size[0] * frame.scale)) <= 0.5
    assert abs(frame.content[1] - max(1, size[1] * frame.scale)) <= 0.5


@every_size
def test_boxes_there_and_back(size):
    height, width = size
    frame, boxes = Frame(height, width), torch.tensor([[0.0, 0, width - 1, height - 1], [1.5, 0.25, 7, 8]])
    there = frame.boxes_to_frame(boxes)
    torch.testing.assert_close((there + 0.5) / frame.scale - 0.5, boxes, atol=1e-3, rtol=1e-5)
    # half a native pixel outwards are the edges of the image: they meet the edges of the frame's content
    edges = frame.boxes_to_frame(torch.tensor([-0.5, -0.5, width - 0.5, height - 0.5]))
    expected = torch.tensor([-0.5, -0.5, width * frame.scale - 0.5, height * frame.scale - 0.5])
    torch.testing.assert_close(edges, expected, atol=1e-3, rtol=1e-5)


@every_size
def test_image(size):
    torch.manual_seed(0)
    frame, image = Frame(*size), torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    found = frame.image_to_frame(image)
    height, width = frame.content
    assert found.shape == (3, 256, 256) and found.dtype == torch.float32
    assert not found[:, height:].any() and not found[:, :, width:].any()
    grey = [Image.fromarray(channel.numpy().astype(np.float32)) for channel in image]
    small = np.stack([np.asarray(g.resize((width, height), Image.Resampling.BILINEAR)) for g in grey])
    expected = (small - small.min()) / max(small.max() - small.min(), 1e-8)
    np.testing.assert_allclose(found[:, :height, :width], expected, atol=2e-3)


def test_image_of_one_grey_value():
    assert not Frame(9, 5).image_to_frame(torch.full((3, 9, 5), 200, dtype=torch.uint8)).any()


@every_size
def test_no_mask_becomes_empty(size):
    """Every pixel of the image alone, or a hundred of them."""
    height, width = size
    rng = np.random.default_rng(0)
    pixels = rng.permutation(height * width)[:100]
    masks = torch.zeros(len(pixels), height * width, dtype=torch.uint8)
    masks[torch.arange(len(pixels)), torch.from_numpy(pixels)] = 1
    for part in masks.view(-1, height, width).split(50):
        found = Frame(height, width).masks_to_frame(part)
        assert found.dtype == torch.uint8 and found.shape[1:] == (256, 256) and found.max() == 1
        assert found.flatten(1).any(dim=1).all()
        # and it stands where the box of the pixel says, give or take a pixel
        box, expected = tight_boxes(found), Frame(height, width).boxes_to_frame(tight_boxes(part))
        reach = 1.5 + max(1.0, Frame(height, width).scale) / 2
        assert ((box[:, :2] + box[:, 2:]) / 2 - (expected[:, :2] + expected[:, 2:]) / 2).abs().max() <= reach


@pytest.mark.parametrize("size", [(64, 32), (128, 128), (256, 200)], ids=str)
def test_masks_there_and_back_exactly(size):
    """Where a native pixel is a whole number of frame pixels."""
    masks = torch.rand(4, *size, generator=torch.Generator().manual_seed(0)) > 0.5
    frame = Frame(*size)
    back = frame.logits_to_native(frame.masks_to_frame(masks).float() - 0.5)
    assert back.shape == masks.shape and torch.equal(back > 0, masks)


@pytest.mark.parametrize("size", [(768, 300), (255, 257), (97, 31), (1200, 1600)], ids=str)
def test_masks_there_and_back(size):
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0][ellipse(size[0] * 0.55, size[1] * 0.4, size[0] * 0.4, size[1] * 0.35, shape=size)] = True
    frame = Frame(*size)
    back = frame.logits_to_native(frame.masks_to_frame(mask).float() - 0.5)[0] > 0
    assert 2 * (back & mask[0]).sum() / (back.sum() + mask.sum()) > 0.98


@every_size
def test_logits_of_native_size(size):
    constant = Frame(*size).logits_to_native(torch.full((2, 256, 256), 3.0))
    torch.testing.assert_close(constant, torch.full((2, *size), 3.0))


@pytest.mark.parametrize("corner", [(0, 0), (14, 4), (7, 2)], ids=str)
def test_crop_holds_the_last_row_and_column(corner):
    image = torch.arange(3 * 20 * 30).view(3, 20, 30).remainder(256).to(torch.uint8)
    x, y = corner  # the second ends at the image's last pixel
    crop = crop_box(image, torch.tensor([x, y, x + 15.0, y + 15.0]), 16)
    np.testing.assert_allclose(crop, image.numpy()[:, y : y + 16, x : x + 16] / 255, atol=1e-6)


def test_crop_is_resized_as_a_whole():
    image = torch.randint(0, 256, (3, 60, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = crop_box(image, torch.tensor([10.4, 19.6, 48.5, 58.0]), 32)  # to whole pixels: 10, 20, 48, 58
    expected = resize(image[:, 20:59, 10:49], (32, 32)) / 255
    assert torch.equal(found, expected) and 0 <= found.min() and found.max() <= 1


@pytest.mark.parametrize("box", [[-5.0, -5, 3, 3], [28, 18, 40, 40], [35, 5, 40, 9], [4, 4, 4, 4]], ids=str)
def test_crop_of_a_box_that_leaves_the_image(box):
    image = torch.arange(600).view(1, 20, 30).remainder(256).expand(3, -1, -1)
    x = slice(min(max(int(box[0]), 0), 29), min(int(box[2]), 29) + 1)
    y = slice(min(max(int(box[1]), 0), 19), min(int(box[3]), 19) + 1)
    found = crop_box(image, torch.tensor(box), 8)
    assert torch.equal(found, resize(image[:, y, x], (8, 8)) / 255)
