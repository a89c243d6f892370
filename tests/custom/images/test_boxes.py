import numpy as np
import pytest
import torch
from skimage.measure import regionprops

from custom.errors import InputError
from custom.images.boxes import check_boxes, tight_boxes
from custom.transforms import tight_boxes as tight_tensors

PICTURE, VOLUME = (20, 30), (4, 20, 30)


@pytest.mark.parametrize(
    ("boxes", "shape", "expected"),
    [
        ([1, 2, 8, 9], PICTURE, [[1, 2, 8, 9]]),
        ([[0, 0, 29, 19], (1.5, 2, 8, 9)], PICTURE, [[0, 0, 29, 19], [1.5, 2, 8, 9]]),
        (np.array([[1, 2, 8, 9]], np.uint16), PICTURE, [[1, 2, 8, 9]]),
        ([1, 2, 3, 8, 9, 3], VOLUME, [[1, 2, 3, 8, 9, 3]]),  # one slice deep
        ([0, 0, 0, 0], (1, 1), [[0, 0, 0, 0]]),  # the whole image
        ([0, 2, 0, 9], (20, 1), [[0, 2, 0, 9]]),
    ],
)
def test_good_boxes(boxes, shape, expected):
    found = check_boxes(boxes, shape, "a.npz")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("boxes", "shape", "field", "found", "allowed"),
    [
        ([[0, 0, 5, 5], [8, 2, 8, 9]], PICTURE, "boxes[1]", "[8, 2, 8, 9]", "x_min < x_max"),
        ([8, 9, 9, 2], PICTURE, "boxes[0]", "[8, 9, 9, 2]", "y_min < y_max"),
        ([0, 0, 30, 9], PICTURE, "boxes[0]", "[0, 0, 30, 9]", "inside the image: x 0 to 29, y 0 to 19"),
        ([0, 0, 9, 19.5], PICTURE, "boxes[0]", "[0, 0, 9, 19.5]", "inside the image"),
        ([-1, 0, 9, 9], PICTURE, "boxes[0]", "[-1, 0, 9, 9]", "inside the image"),
        ([0, float("nan"), 9, 9], PICTURE, "boxes[0]", "[0.0, nan, 9.0, 9.0]", "finite numbers"),
        ([0, 0, float("inf"), 9], PICTURE, "boxes[0]", "[0.0, 0.0, inf, 9.0]", "finite numbers"),
        ([0, 0, 9], PICTURE, "boxes", "shape (1, 3)", "(N, 4): x_min y_min x_max y_max"),
        ([0, 0, 0, 9, 9, 1], PICTURE, "boxes", "6 numbers per box for a picture", "(N, 4)"),
        (
            [0, 0, 9, 9],
            VOLUME,
            "boxes",
            "4 numbers per box for a volume",
            "(N, 6): x_min y_min z_min x_max y_max z_max",
        ),
        ([], PICTURE, "boxes", "no box", "(N, 4)"),
        (np.zeros((0, 4)), PICTURE, "boxes", "no box", "(N, 4)"),
        ([3, 3, 3, 3], PICTURE, "boxes[0]", "[3, 3, 3, 3]", "x_min < x_max"),  # one pixel is not a box
        (np.zeros((1, 1, 4)), PICTURE, "boxes", "shape (1, 1, 4)", "(N, 4)"),
        (None, PICTURE, "boxes", "shape (1, 1)", "(N, 4)"),
        ("here", PICTURE, "boxes", "'here'", "lists of 4 numbers"),
        ([[0, 0, 9, 9], [0, 0, 9]], PICTURE, "boxes", "[[0, 0, 9, 9], [0, 0, 9]]", "lists of 4 numbers"),
        (np.array([["a", "b"], ["c", "d"]]), PICTURE, "boxes", "array([['a', 'b'],", "lists of 4 numbers"),
        ([0, 0, 2, 9, 9, 1], VOLUME, "boxes[0]", "[0, 0, 2, 9, 9, 1]", "z_min <= z_max"),
        ([0, 0, 0, 9, 9, 4], VOLUME, "boxes[0]", "[0, 0, 0, 9, 9, 4]", "z 0 to 3"),
    ],
)
def test_bad_boxes(boxes, shape, field, found, allowed):
    with pytest.raises(InputError) as error:
        check_boxes(boxes, shape, "a.npz")
    message = str(error.value)
    assert message.startswith(f"a.npz: {field}: found {found}") and "\n" not in message
    assert allowed in message.partition("; allowed: ")[2]


@pytest.mark.parametrize(
    ("box", "slice_axis", "allowed"),
    [
        ([2, 0, 0, 2, 9, 3], 0, None),
        ([0, 2, 0, 9, 2, 3], 1, None),
        ([0, 0, 2, 9, 9, 2], 0, "z_min < z_max"),
        ([3, 0, 0, 2, 9, 3], 0, "x_min <= x_max"),
        ([0, 2, 0, 9, 2, 3], 0, "y_min < y_max"),
    ],
)
def test_slices_along_another_axis(box, slice_axis, allowed):
    if allowed is None:
        assert check_boxes(box, VOLUME, "a.nii", slice_axis=slice_axis).tolist() == [box]
        return
    with pytest.raises(InputError, match=allowed):
        check_boxes(box, VOLUME, "a.nii", slice_axis=slice_axis)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32])
def test_tight_boxes(dtype):
    rng = np.random.default_rng(0)
    masks = rng.random((40, 13, 7)) > 0.97
    masks[:, 5, 3] = True
    masks[0, 5, 3], masks[0, 12, 6] = False, True  # only the last corner
    expected = []
    for mask in masks:
        y_min, x_min, y_end, x_end = regionprops(mask.astype(np.uint8))[0].bbox
        expected.append([x_min, y_min, x_end - 1, y_end - 1])
    found = tight_boxes(masks.astype(dtype))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)
    tensors = tight_tensors(torch.from_numpy(masks.astype(dtype)))
    assert tensors.dtype == torch.float32
    np.testing.assert_array_equal(tensors, expected)


@pytest.mark.parametrize("boxes", [[10**400, 1, 2, 3], [[1, 2, 3, 10**400]]])
def test_numbers_beyond_all_bounds(boxes):
    with pytest.raises(InputError, match="boxes: found"):
        check_boxes(boxes, (10, 10), "x")


def test_more_boxes_than_ids():
    with pytest.raises(InputError, match="found 65536 boxes; allowed: at most 65535"):
        check_boxes(np.tile([1, 2, 3, 4], (65_536, 1)), (10, 10), "x")
