import numpy as np
import pytest
import torch

from custom.clicks import view_boxes
from custom.images.frame import crop_box
from custom.transforms import RandViewsd, Viewsd

HEIGHT, WIDTH = 120, 200
SCALE = 256 / WIDTH
BOXES = np.array([[30.0, 40.0, 69.0, 59.0], [150.0, 80.0, 199.0, 119.0], [10.0, 5.0, 12.0, 6.0]])


@pytest.fixture
def item():
    image = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
    return {"image": torch.from_numpy(image), "boxes": torch.from_numpy(BOXES), "case": "a"}


@pytest.mark.parametrize(("margin", "side"), [(0.2, 128), (np.array([[0.1], [0.5], [0.3]]), 16)])
def test_views_are_cut_out_of_the_native_image(item, margin, side):
    found = Viewsd("image", size=side, margin=margin)(item)
    places = view_boxes(BOXES, (HEIGHT, WIDTH), margin)
    assert found["views"].shape == (3, 3, side, side) and found["views"].dtype == torch.float32
    for view, place in zip(found["views"], places, strict=True):
        np.testing.assert_array_equal(view, crop_box(item["image"].numpy(), place, side))
    np.testing.assert_allclose(found["view_boxes"], (places + 0.5) * SCALE - 0.5, rtol=1e-6)
    whole = (np.array([[0, 0, WIDTH - 1, HEIGHT - 1]] * 3) + 0.5) * SCALE - 0.5
    np.testing.assert_allclose(found["image_boxes"], whole, rtol=1e-6)
    assert found["image"] is item["image"] and "views" not in item


def test_pixels_of_a_view(item):
    box = torch.tensor([[100.0, 50.0, 119.0, 69.0]])
    found = Viewsd("image", size=32, margin=0.3)(item | {"boxes": box})["views"]  # 20 pixels and 6 on every side
    np.testing.assert_allclose(found[0], item["image"][:, 44:76, 94:126] / 255, atol=1e-6)


def test_drawn_margins(item):
    drawing = RandViewsd("image", size=16, margins=(0.1, 0.9))
    drawing.set_random_state(seed=3)
    found = drawing(item)
    margins = np.random.RandomState(3).uniform(0.1, 0.9, size=(3, 1))
    expected = Viewsd("image", size=16, margin=margins)(item)
    assert found.keys() == expected.keys()
    for name in ("views", "view_boxes", "image_boxes"):
        assert torch.equal(found[name], expected[name]), name
    assert not torch.equal(drawing(item)["view_boxes"], found["view_boxes"])


def test_other_key_of_the_boxes(item):
    moved = {"image": item["image"], "places": item["boxes"]}
    for transform in (Viewsd("image", size=8, box_key="places"), RandViewsd("image", size=8, box_key="places")):
        assert transform(moved)["views"].shape == (3, 3, 8, 8)
