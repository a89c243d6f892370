import numpy as np
import pytest

from custom.inference.label_map import Canvas


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [("logit", [[0, 2, 1, 1, 0]]), ("smaller", [[0, 1, 1, 1, 0]]), ("last", [[0, 2, 2, 2, 0]])],
)
@pytest.mark.parametrize("order", [[1, 2], [2, 1]])
def test_overlap(overlap, expected, order):
    logits = {1: np.array([[-1.0, 2.0, 2.0, 5.0, 0]]), 2: np.array([[-2.0, 3.0, 1.0, 5.0, 0]])}
    canvas = Canvas((1, 5), 2, overlap)
    for value in order:
        canvas.paint(value, logits[value])
    assert canvas.labels.tolist() == expected and canvas.labels.dtype == np.uint8 and canvas.masks is None


def test_the_smaller_mask_lies_on_top():
    canvas = Canvas((3, 3), 2, "smaller", keep_masks=True)
    canvas.paint(1, np.array([[1.0, 1, 1], [-1, -1, -1], [-1, -1, -1]]))
    canvas.paint(2, np.ones((3, 3)))
    assert canvas.labels.tolist() == [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    assert canvas.masks[0].sum() == canvas.masks.area(0) == 3 and canvas.masks[1].all() and len(canvas.masks) == 2


@pytest.mark.parametrize("finish", [True, False])
def test_slices_do_not_touch_each_other(finish):
    logits = np.random.default_rng(0).normal(size=(3, 8, 8))
    expected = np.where(logits.max(axis=0) > 0, logits.argmax(axis=0) + 1, 0)
    canvas = Canvas((2, 8, 8), 3, keep_masks=True)
    for k in (2, 0, 1):
        canvas.paint(k + 1, logits[k], 1)
    if finish:
        canvas.finish(1)
    np.testing.assert_array_equal(canvas.labels[1], expected)
    assert not canvas.labels[0].any()
    for k in range(3):
        np.testing.assert_array_equal(canvas.masks[k], np.stack([np.zeros((8, 8), bool), logits[k] > 0]))


def test_empty_mask():
    canvas = Canvas((2, 2), 1, keep_masks=True)
    canvas.paint(1, np.zeros((2, 2)))
    assert not canvas.labels.any() and not canvas.masks[0].any() and canvas.masks.area(0) == 0


@pytest.mark.parametrize(("boxes", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_room_for_every_label(boxes, dtype):
    canvas = Canvas((2, 2), boxes)
    canvas.paint(boxes, np.ones((2, 2)))
    assert canvas.labels.dtype == dtype and (canvas.labels == boxes).all()
