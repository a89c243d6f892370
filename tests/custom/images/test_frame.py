import numpy as np
import pytest
import torch
import torch.nn.functional as F

from custom.images.frame import Frame, crop_box, resize

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
    frame, boxes = Frame(height, width), np.array([[0.0, 0, width - 1, height - 1], [1.5, 0.25, 7, 8]])
    there = frame.boxes_to_frame(boxes)
    np.testing.assert_allclose(frame.boxes_to_native(there), boxes, atol=1e-9)
    np.testing.assert_allclose((there + 0.5) / frame.scale - 0.5, boxes, atol=1e-9)
    # half a native pixel outwards are the edges of the image: they meet the edges of the frame's content
    edges = frame.boxes_to_frame(np.array([-0.5, -0.5, width - 0.5, height - 0.5]))
    expected = np.array([-0.5, -0.5, width * frame.scale - 0.5, height * frame.scale - 0.5])
    np.testing.assert_allclose(edges, expected, atol=1e-9)


@every_size
def test_image(size):
    frame, image = Frame(*size), np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    found = frame.image_to_frame(image)
    height, width = frame.content
    assert found.shape == (3, 256, 256) and found.dtype == np.float32
    assert not found[:, height:].any() and not found[:, :, width:].any()
    tensor = torch.from_numpy(image)[None].float()
    small = F.interpolate(tensor, size=(height, width), mode="bilinear", antialias=True)[0].numpy()
    expected = (small - small.min()) / max(small.max() - small.min(), 1e-8)
    np.testing.assert_allclose(found[:, :height, :width], expected, atol=1e-5)


def test_grey_image_has_three_equal_channels():
    image = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    found = Frame(30, 20).image_to_frame(np.broadcast_to(image, (3, 30, 20)))
    assert np.array_equal(found, Frame(30, 20).image_to_frame(np.stack([image] * 3))) and (found == found[0]).all()


def test_image_of_one_grey_value():
    assert not Frame(9, 5).image_to_frame(np.full((3, 9, 5), 200, np.uint8)).any()


@every_size
def test_logits_of_native_size(size):
    logits, (height, width) = np.random.default_rng(0).normal(size=(2, 256, 256)), Frame(*size).content
    content = torch.from_numpy(logits[None, :, :height, :width])
    expected = F.interpolate(content, size=size, mode="bilinear")[0]
    found = Frame(*size).logits_to_native(logits.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("corner", [(0, 0), (14, 4), (7, 2)], ids=str)
def test_crop_holds_the_last_row_and_column(corner):
    image = (np.arange(3 * 20 * 30) % 256).astype(np.uint8).reshape(3, 20, 30)
    x, y = corner  # the second ends at the image's last pixel
    crop = crop_box(image, np.array([x, y, x + 15.0, y + 15.0]), 16)
    np.testing.assert_allclose(crop, image[:, y : y + 16, x : x + 16] / 255, atol=1e-6)


def test_crop_is_resized_as_a_whole():
    image = np.random.default_rng(0).integers(0, 256, (3, 60, 50), dtype=np.uint8)
    found = crop_box(image, np.array([10.4, 19.6, 48.5, 58.0]), 32)  # to whole pixels: 10, 20, 48, 58
    expected = resize(image[:, 20:59, 10:49], (32, 32)) / 255
    assert np.array_equal(found, expected) and 0 <= found.min() and found.max() <= 1


@pytest.mark.parametrize("box", [[-5.0, -5, 3, 3], [28, 18, 40, 40], [35, 5, 40, 9], [4, 4, 4, 4]], ids=str)
def test_crop_of_a_box_that_leaves_the_image(box):
    image = np.broadcast_to((np.arange(600) % 256).reshape(20, 30), (3, 20, 30))
    x = slice(min(max(int(box[0]), 0), 29), min(int(box[2]), 29) + 1)
    y = slice(min(max(int(box[1]), 0), 19), min(int(box[3]), 19) + 1)
    found = crop_box(image, np.array(box), 8)
    assert np.array_equal(found, resize(image[:, y, x], (8, 8)) / 255)
