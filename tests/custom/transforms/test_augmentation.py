"""The augmentations of ``train.json``: exact where possible, and without any effect if off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandFlipd

from custom.images.frame import Frame, crop_box
from custom.transforms import Boxd, CropBoxesd, RandAffineMasksd, RandBoxd, ToFramed, tight_boxes

TRAIN = Path(__file__).parents[3] / "bundle" / "configs" / "train.json"
SIZE = (60, 90)


def item(mask, image=None):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, *SIZE), np.uint8)) if image is None else image
    return {"image": image, "label": torch.as_tensor(mask, dtype=torch.uint8)[None], "case": "a"}


def square(x=30, y=20, side=20):
    mask = np.zeros(SIZE, np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def configured(**switches):
    """Return the training's transforms after the two loaders, up to the frame."""
    keys = ("flip_prob", "affine_prob", "intensity_prob", "box_shift", "box_scale", "loose_prob", "loose_shift")
    config = json.loads(TRAIN.read_text())
    steps = config["train"]["preprocessing"]["transforms"][2:]
    names = [step["_target_"].split(".")[-1] for step in steps]
    steps = steps[: names.index("CropBoxesd")]
    parser = ConfigParser({**{key: config[key] for key in keys}, **switches, "steps": steps})
    return Compose(parser.get_parsed_content("steps"))


def test_off_by_default_and_draws_as_before():
    transform = configured()
    before = Compose(
        [RandFlipd(["image", "label"], prob=0.5, spatial_axis=axis) for axis in (0, 1)] + [RandBoxd("label")]
    )
    assert [type(t) for t in transform.transforms] == [type(t) for t in before.transforms]
    for seed in range(20):
        one, other = (t.set_random_state(seed=seed)(item(square())) for t in (transform, before))
        assert all(torch.equal(one[key], other[key]) for key in ("image", "label", "boxes"))
        assert one["image"].dtype == torch.uint8


@pytest.mark.parametrize("scale", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("shift", [0, 5])
def test_enlarged_box(scale, shift):
    found = Boxd("label", shift=shift, scale=scale)(item(square()))["boxes"]
    outwards = shift * 90 / 256 + scale * 20 / 2
    torch.testing.assert_close(found, torch.tensor([[30, 20, 49, 39]]) + torch.tensor([-1, -1, 1, 1]) * outwards)
    width = found[0, 2] - found[0, 0] + 1
    assert float(width) == pytest.approx(20 * (1 + scale) + 2 * shift * 90 / 256, abs=1e-4)


def test_enlarged_box_stays_inside():
    found = Boxd("label", scale=9.0)(item(square()))["boxes"]
    assert found.tolist() == [[0, 0, 89, 59]]


def test_random_enlargement():
    masks = {"label": torch.from_numpy(np.stack([square()] * 400))}
    shifted = RandBoxd("label").set_random_state(seed=1)(masks)["boxes"]
    enlarged = RandBoxd("label", max_scale=0.4).set_random_state(seed=1)(masks)["boxes"]
    shares = (enlarged - shifted) * torch.tensor([-1, -1, 1, 1]) / 10  # of half the box's 20 pixels
    assert -1e-5 <= shares.min() < 0.02 and 0.38 < shares.max() <= 0.4 + 1e-5
    assert shares.mean() == pytest.approx(0.2, abs=0.01)
    assert torch.corrcoef(shares.T).triu(1).abs().max() < 0.2  # the sides are drawn independently


def test_loose_boxes():
    masks = {"label": torch.from_numpy(np.stack([square()] * 400))}
    boxes = RandBoxd("label", loose_prob=0.25, loose_shift=8).set_random_state(seed=1)(masks)["boxes"]
    shifts = (boxes - torch.tensor([30, 20, 49, 39])) * torch.tensor([-1, -1, 1, 1]) * 256 / 90
    assert -1e-4 <= shifts.min() and shifts.max() == pytest.approx(8, abs=1e-4)
    wide = (shifts > 5.5).float()  # a third of the sides of a quarter of the boxes
    assert wide.mean() == pytest.approx(0.25 / 3, abs=0.02)
    assert torch.corrcoef(wide.T).triu(1)[wide.new_ones(4, 4).triu(1) > 0].min() > 0.1  # a box is loose on all sides


def test_contrast_keeps_range_and_order():
    data = item(square())
    seen = set()
    for seed in range(10):
        found = configured(flip_prob=0.0, intensity_prob=1.0).set_random_state(seed=seed)(data)["image"]
        assert found.min() == data["image"].min() and 254.99 < found.max() <= 255
        order = data["image"].flatten().argsort()
        assert (found.flatten()[order].diff() >= -1e-3).all()
        seen.add(round(float(found.mean()), 3))
    assert len(seen) == 10


def test_contrast_is_the_gamma_curve():
    data = item(square())
    transform = RandAdjustContrastd("image", prob=1.0, gamma=(0.7, 1.5)).set_random_state(seed=0)
    found = transform(data)["image"]
    image = data["image"].double()
    low, high = image.min(), image.max()
    expected = ((image - low) / (high - low)) ** transform.adjuster.gamma_value * (high - low) + low
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)


def test_moved_image_mask_box_and_crop_agree():
    """The image is the mask itself, so that each of image, mask and box follows from any other."""
    for seed in range(10):
        mask = square()
        data = item(mask, torch.from_numpy(255 * mask).expand(3, -1, -1))
        found = configured(affine_prob=1.0, box_shift=0).set_random_state(seed=seed)(data)
        image, label = (torch.as_tensor(found[key]).float() for key in ("image", "label"))
        assert image.shape == (3, *SIZE) and set(label.unique().tolist()) == {0, 1}
        assert not torch.equal(label, torch.as_tensor(data["label"]).float())
        sure = (image[0] < 63) | (image[0] > 192)  # between them, at the edge, bilinear and nearest may differ
        assert torch.equal(image[0][sure] > 128, label[0][sure] > 0) and sure.float().mean() > 0.95
        assert torch.equal(found["boxes"], tight_boxes(label))
        assert 0 <= image.min() and image.max() <= 255.001
        framed = ToFramed("image", mask_keys=["label"])(CropBoxesd("image", crops={"crop": 16})(found))
        crop = crop_box(image.numpy(), found["boxes"][0].numpy(), 16)
        np.testing.assert_array_equal(framed["crop"][0], crop)
        inside = Frame(*SIZE).boxes_to_frame(found["boxes"])
        assert (tight_boxes(framed["label"]) - inside).abs().max() <= 3  # a native pixel is 2.8 of the frame


MOVES = {
    "out of the image": (square(0, 0, 2), {"translate_range": [(30, 30), (30, 30)]}),
    "shrunk away": (square(44, 29, 1), {"scale_range": [(9, 9), (9, 9)]}),
}


@pytest.mark.parametrize("lost", MOVES)
def test_a_mask_that_would_vanish_stays(lost):
    mask, move = MOVES[lost]
    data = item(mask)
    options = {
        "keys": ["image", "label"],
        "prob": 1.0,
        "mode": ["bilinear", "nearest"],
        "padding_mode": "zeros",
        **move,
    }
    assert not torch.as_tensor(RandAffined(**options).set_random_state(seed=0)(data)["label"]).any()
    found = RandAffineMasksd(**options).set_random_state(seed=0)(data)
    assert all(found[key] is data[key] for key in data)
