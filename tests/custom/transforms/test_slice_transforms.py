import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandFlipd

from custom.errors import InputError
from custom.images.frame import Frame, crop_box
from custom.transforms import (
    Boxd,
    CropBoxesd,
    LoadSliced,
    PickMasksd,
    RandBoxd,
    RestoreMasksd,
    ToFramed,
    masks_to_frame,
    tight_boxes,
)

HEIGHT, WIDTH = 61, 90


@pytest.fixture
def arrays():
    """A volume and its labels: an L on slice 1, two squares on slice 2, one of them in the corner."""
    image = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
    label = np.zeros((3, HEIGHT, WIDTH), np.uint16)
    label[1, 10:40, 20:26], label[1, 34:40, 20:50] = 7, 7
    label[2, 5:11, 60:70], label[2, 50:, 80:] = 300, 7
    return image, label


@pytest.fixture
def item(arrays, tmp_path):
    return write(tmp_path, *arrays)


def write(folder, image, label, z=1, ids=(7,)):
    np.save(folder / "image.npy", image)
    np.save(folder / "label.npy", label)
    paths = {"image": str(folder / "image.npy"), "label": str(folder / "label.npy")}
    return paths | {"slice": z, "label_ids": list(ids), "case": "case", "modality_index": 3}


def masks_of(*boxes, size=(HEIGHT, WIDTH)):
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x_min, y_min, x_max, y_max) in zip(masks, boxes, strict=True):
        mask[y_min : y_max + 1, x_min : x_max + 1] = 1
    return masks


def test_load_grey_slice(item, arrays):
    found = LoadSliced(["image", "label"])(item)
    assert found["image"].dtype == torch.uint8 and found["label"].dtype == torch.int32
    np.testing.assert_array_equal(found["image"], np.stack([arrays[0][1]] * 3))
    np.testing.assert_array_equal(found["label"], arrays[1][1][None])
    assert item["image"].endswith("image.npy")  # the given item is unchanged


def test_load_colour_slice(tmp_path, arrays):
    colour = np.random.default_rng(1).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
    found = LoadSliced(["image", "label"])(write(tmp_path, colour, arrays[1], z=2))
    np.testing.assert_array_equal(found["image"], colour[2].transpose(2, 0, 1))


def test_pick_masks(tmp_path, arrays):
    loaded = LoadSliced(["image", "label"])(write(tmp_path, *arrays, z=2, ids=[300, 7]))
    found = PickMasksd("label")(loaded)["label"]
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found, np.stack([arrays[1][2] == 300, arrays[1][2] == 7]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [7, 300]}, "case: label: found no pixel of label 300; allowed: the labels of its index"),
        ({"image": (3, 60, 90)}, "case: label: found size (61, 90); allowed: the image's, (60, 90)"),
    ],
)
def test_label_that_does_not_fit(tmp_path, arrays, change, message):
    image = np.zeros(change["image"], np.uint8) if "image" in change else arrays[0]
    loaded = LoadSliced(["image", "label"])(write(tmp_path, image, arrays[1], ids=change.get("ids", [7])))
    with pytest.raises(InputError) as error:
        PickMasksd("label")(loaded)
    assert str(error.value) == message


def test_missing_array(item):
    with pytest.raises(InputError, match=r"none\.npy: array: found no such file"):
        LoadSliced("image")(item | {"image": "none.npy"})


@pytest.mark.parametrize(("shift", "outwards"), [(0.0, 0), (2.56, 0.9)])
def test_boxes_move_outwards_and_stay_inside(shift, outwards):
    """A shift of 2.56 frame pixels is 0.9 native pixels, the longer side having 90."""
    masks = masks_of((20, 10, 49, 39), (0, 50, 89, 60))
    found = Boxd("label", shift=shift)({"label": masks})["boxes"]
    expected = [[20 - outwards, 10 - outwards, 49 + outwards, 39 + outwards], [0, 50 - outwards, 89, 60]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("size", [(61, 90), (768, 300), (30, 31)], ids=str)
def test_random_boxes(size):
    height, width = size
    masks = masks_of(*[(width // 3, height // 3, 2 * width // 3, 2 * height // 3)] * 400, size=size)
    transform = RandBoxd("label").set_random_state(seed=0)
    boxes = transform({"label": masks})["boxes"]
    shifts = (boxes - tight_boxes(masks)) * torch.tensor([-1, -1, 1, 1]) * Frame(*size).scale
    torch.testing.assert_close(shifts, shifts.round(), atol=1e-3, rtol=0)
    assert set(shifts.round().int().unique().tolist()) == set(range(6))
    for side in shifts.T:  # the sides are drawn independently, each value about as often
        assert torch.bincount(side.round().int()).min() > 400 / 6 / 2
    assert not torch.equal(boxes, transform({"label": masks})["boxes"])


def test_random_boxes_stay_inside():
    masks = masks_of(*[(0, 0, WIDTH - 1, HEIGHT - 1)] * 20)
    boxes = RandBoxd("label").set_random_state(seed=0)({"label": masks})["boxes"]
    assert torch.equal(boxes, tight_boxes(masks))


def test_seeded_boxes_do_not_depend_on_the_order():
    masks = masks_of((20, 10, 49, 39), (30, 20, 40, 30))
    items = [{"label": masks, "case": case, "slice": z} for case in ("a", "b") for z in (1, 2)]
    transform = RandBoxd("label", seeded_by=["case", "slice"])
    forward = [transform(item)["boxes"] for item in items]
    backward = [RandBoxd("label", seeded_by=["case", "slice"])(item)["boxes"] for item in reversed(items)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert len({tuple(boxes.flatten().tolist()) for boxes in forward}) == len(items)


def preprocessing(*flips):
    """The training's transforms, the draw of the boxes fixed."""
    return Compose(
        [
            LoadSliced(["image", "label"]),
            PickMasksd("label"),
            *(RandFlipd(["image", "label"], prob=1, spatial_axis=axis) for axis in flips),
            RandBoxd("label", seeded_by=["case"]),
            CropBoxesd("image", crops={"crop": 64, "clip_crop": 224}),
            ToFramed("image", mask_keys=["label"]),
        ]
    )


@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("z", [1, 2])
def test_image_mask_box_and_crop_agree(tmp_path, arrays, flips, z):
    ids = [7] if z == 1 else [7, 300]
    found = preprocessing(*flips)(write(tmp_path, *arrays, z=z, ids=ids))
    axes = [axis + 1 for axis in flips]
    (tmp_path / "flipped").mkdir()
    flipped = [np.ascontiguousarray(np.flip(array, axes)) for array in arrays]
    expected = preprocessing()(write(tmp_path / "flipped", *flipped, z=z, ids=ids))
    for key in ("image", "label", "boxes", "crop", "clip_crop"):
        assert torch.equal(found[key], expected[key]), key

    frame = Frame(HEIGHT, WIDTH)
    assert found["image"].shape == (3, 256, 256) and found["label"].shape == (len(ids), 256, 256)
    native = (found["boxes"] + 0.5) / frame.scale - 0.5
    image = torch.from_numpy(flipped[0][z]).expand(3, -1, -1)
    for box, crop, clip_crop in zip(native, found["crop"], found["clip_crop"], strict=True):
        torch.testing.assert_close(crop, torch.from_numpy(crop_box(image.numpy(), box.numpy(), 64)))
        torch.testing.assert_close(clip_crop, torch.from_numpy(crop_box(image.numpy(), box.numpy(), 224)))
    masks = torch.from_numpy(flipped[1][z].astype(np.int32)) == torch.tensor(ids)[:, None, None]
    tight = tight_boxes(masks)
    assert (native[:, :2] <= tight[:, :2] + 1e-3).all() and (native[:, 2:] >= tight[:, 2:] - 1e-3).all()
    inside = tight_boxes(found["label"])  # in the frame, up to the rounding of pixels
    assert (found["boxes"][:, :2] <= inside[:, :2] + 1.5).all() and (found["boxes"][:, 2:] >= inside[:, 2:] - 1.5).all()


def test_restore(arrays):
    label = torch.from_numpy((arrays[1][2] == 7)[None].astype(np.uint8))
    logits = masks_to_frame(label, Frame(HEIGHT, WIDTH)).float() - 0.5
    facts = {"case": "a", "slice": torch.tensor(2), "modality": "CT", "dimension": torch.tensor(3)}
    item = facts | {"spacing": torch.tensor([5.0, 0.5, 0.5]), "label": label, "pred": logits}
    result = RestoreMasksd("pred")(item)["result"]
    assert result["pred"].shape == result["label"].shape == (1, HEIGHT, WIDTH)
    assert result["pred"].dtype == result["label"].dtype == torch.bool and torch.equal(result["label"], label.bool())
    assert (result["pred"] ^ result["label"]).sum() < 0.1 * label.sum()
    rest = {key: value for key, value in result.items() if key not in ("pred", "label")}
    assert rest == {"case": "a", "slice": 2, "modality": "CT", "dimension": 3, "spacing": [5.0, 0.5, 0.5]}
