import numpy as np
import pytest
from scipy.ndimage import label as scipy_label

from custom.errors import InputError
from data_prep.masks import TooSmallError, clean_masks, paint, slice_index

NAMES = {1: "a", 2: "b", 3: "c"}


def blobs(shape, high, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, high + 1, [-(-n // 4) for n in shape[1:]])
    plane = np.kron(coarse, np.ones((4, 4), int))[: shape[1], : shape[2]]
    return np.broadcast_to(plane, shape).astype(np.uint8).copy()


@pytest.mark.parametrize("min_size", [1, 20, 60])
def test_components_agree_with_scipy(min_size):
    label = blobs((1, 40, 52), 3)
    masks = clean_masks(label, NAMES, split=True, min_size=min_size, source="x")
    wanted = []
    for number, name in NAMES.items():
        parts, count = scipy_label(label[0] == number, np.ones((3, 3)))
        wanted += [(name, parts == k) for k in range(1, count + 1) if (parts == k).sum() >= min_size]
    assert list(masks.names.values()) == [name for name, _ in wanted]
    for number, (_, inside) in enumerate(wanted, 1):
        np.testing.assert_array_equal(masks.label[0] == number, inside)


def test_components_of_a_volume_agree_with_scipy():
    label = np.random.default_rng(4).integers(0, 12, (9, 14, 11)).astype(np.uint16)
    label[label > 3] = 0
    label[:, :, -2:] = 0  # the box around the foreground is smaller than the volume
    masks = clean_masks(label, NAMES, split=True, min_size=3, source="x")
    wanted = []
    for number, name in NAMES.items():
        parts, count = scipy_label(label == number, np.ones((3, 3, 3)))
        wanted += [(name, parts == k) for k in range(1, count + 1) if (parts == k).sum() >= 3]
    assert list(masks.names.values()) == [name for name, _ in wanted] and masks.label.shape == label.shape
    for number, (_, inside) in enumerate(wanted, 1):
        np.testing.assert_array_equal(masks.label == number, inside)


def test_neighbours_across_slices_are_one_component():
    label = np.zeros((3, 6, 6), np.uint8)
    label[0, 1, 1] = label[1, 2, 2] = label[2, 3, 3] = label[0, 5, 5] = 1
    masks = clean_masks(label, NAMES, split=True, min_size=1, source="x")
    assert masks.names == {1: "a", 2: "a"} and (masks.label == 1).sum() == 3
    np.testing.assert_array_equal(clean_masks(label, NAMES, split=False, min_size=1, source="x").label, label)


def test_corner_neighbours_are_one_component():
    label = np.eye(6, dtype=np.uint8)[None]
    assert clean_masks(label, NAMES, split=True, min_size=6, source="x").names == {1: "a"}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.uint64])
def test_whole_masks_are_renumbered_in_order(dtype):
    high = 7 if dtype == np.uint8 else 300
    label = np.zeros((2, 3, 8), dtype)
    label[0, 0, :4], label[1, 1, :6], label[0, 2, 0] = high, 2, 5
    masks = clean_masks(label, {2: "b", high: "h", 5: "tiny"}, split=False, min_size=2, source="x")
    assert masks.names == {1: "b", 2: "h"}
    assert masks.label.dtype == np.uint8
    np.testing.assert_array_equal(masks.label == 1, label == 2)
    np.testing.assert_array_equal(masks.label == 2, label == high)


def test_ids_beyond_16_bit():
    label = np.zeros((1, 2, 4), np.int64)
    label[0, 0], label[0, 1] = 1 << 40, 70_000
    masks = clean_masks(label, {"*": "cell"}, split=False, min_size=1, source="x")
    assert masks.label.tolist() == [[[2] * 4, [1] * 4]]


def test_many_instances_use_16_bit():
    label = np.arange(400, dtype=np.uint16).reshape(1, 20, 20)
    masks = clean_masks(label, {"*": "cell"}, split=False, min_size=1, source="x")
    assert masks.label.dtype == np.uint16 and len(masks.names) == 399
    np.testing.assert_array_equal(masks.label, label)


def test_too_many_masks():
    label = np.arange(1, 257 * 256 + 1, dtype=np.int32).reshape(1, 257, 256)
    with pytest.raises(InputError, match="65792 masks"):
        clean_masks(label, {"*": "cell"}, split=False, min_size=1, source="x")


def test_unnamed_ids_are_dropped_and_star_names_the_rest():
    label = blobs((1, 16, 16), 3)
    dropped = clean_masks(label, {2: "b"}, split=False, min_size=1, source="x")
    np.testing.assert_array_equal(dropped.label, label == 2)
    kept = clean_masks(label, {2: "b", "*": "rest"}, split=False, min_size=1, source="x")
    assert list(kept.names.values()) == ["rest", "b", "rest"]


def test_errors():
    empty, label = np.zeros((1, 4, 4), np.uint8), np.full((1, 4, 4), 9, np.uint8)
    with pytest.raises(InputError, match="label: found no foreground"):
        clean_masks(empty, NAMES, split=True, min_size=1, source="x")
    with pytest.raises(InputError, match=r"only ids \[9\]; allowed: at least one of ids 1, 2, 3"):
        clean_masks(label, NAMES, split=True, min_size=1, source="x")
    for split in (True, False):
        with pytest.raises(TooSmallError, match="no mask of 17 px"):
            clean_masks(label, {9: "x"}, split=split, min_size=17, source="x")


def test_slice_index():
    label = np.zeros((4, 3, 3), np.uint8)
    label[1, 0, 0], label[1, 2, 2], label[3, 1, 1] = 5, 2, 1
    assert slice_index(label) == [[1, [2, 5]], [3, [1]]]
    assert slice_index(np.zeros((2, 3, 3), np.uint8)) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_slice_index_agrees_with_numpy(dtype):
    label = np.random.default_rng(1).integers(0, 40, (5, 12, 10)).astype(dtype) * 6
    label[[0, 3]] = 0
    assert slice_index(label) == [[z, np.unique(label[z])[1:].tolist()] for z in (1, 2, 4)]


def test_only_the_largest_masks_of_a_slice_are_listed():
    label = np.zeros((2, 4, 8), np.uint8)
    label[0, 0, :2], label[0, 1, :5], label[0, 2, :3], label[0, 3, :3] = 1, 2, 3, 4
    label[1, 0, :2], label[1, 1, :1] = 1, 2
    assert slice_index(label, 4) == slice_index(label) == [[0, [1, 2, 3, 4]], [1, [1, 2]]]
    assert slice_index(label, 2) == [[0, [2, 3]], [1, [1, 2]]]  # of two equal sizes the lower id
    assert slice_index(label, max_masks=1) == [[0, [2]], [1, [1]]]


def test_the_smaller_object_lies_on_top():
    rng = np.random.default_rng(2)
    shape, masks = (2, 7, 9), []
    for size in (20, 60, 5, 0, 5):
        mask = np.zeros(126, bool)
        mask[rng.choice(126, size, replace=False)] = True
        masks.append(mask)
    wanted = np.zeros(126, int)
    for k in (1, 0, 2, 4):  # by size, and of two equal sizes the later one on top
        wanted[masks[k]] = k + 1
    label = paint([np.flatnonzero(mask) for mask in masks], shape, "x")
    np.testing.assert_array_equal(label, wanted.reshape(shape))
    assert paint([], shape, "x").shape == shape
