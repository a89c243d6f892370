import numpy as np
import pytest

from custom.inference import draw_overlay


@pytest.mark.parametrize("colour", [False, True])
def test_tint_outline_and_box(colour):
    image = np.full((60, 80, 3) if colour else (60, 80), 100, np.uint8)
    labels = np.zeros((60, 80), np.uint8)
    labels[20:30, 20:40] = 1
    labels[40:50, 60:70] = 2
    before = image.copy()
    found = draw_overlay(image, labels, np.array([[15, 15, 45, 35], [55, 35, 75, 55.4]]))
    assert found.shape == (60, 80, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    first, second = found[20, 20], found[40, 60]  # on the outlines
    assert len({tuple(first), tuple(second), (100, 100, 100)}) == 3
    np.testing.assert_array_equal(found[25, 30], np.uint8(0.7 * 100 + 0.3 * first))
    np.testing.assert_array_equal(found[45, 65], np.uint8(0.7 * 100 + 0.3 * second))
    # the box is drawn around its pixels, which keep the picture's
    np.testing.assert_array_equal(found[14, 14:47], np.tile(first, (33, 1)))
    np.testing.assert_array_equal(found[14:37, 46], np.tile(first, (23, 1)))
    untouched = np.ones((60, 80), bool)
    untouched[14:37, 14:47] = untouched[34:57, 54:77] = False
    assert (found[untouched] == 100).all() and (found[15, 15] == 100).all()


def test_box_as_large_as_the_picture_and_more_boxes_than_colours():
    boxes = np.tile([0, 0, 19, 9], (9, 1))
    found = draw_overlay(np.zeros((10, 20), np.uint8), np.full((10, 20), 9, np.uint16), boxes)
    assert found.shape == (10, 20, 3) and found.any(axis=2).all()


def test_lines_of_a_large_picture_are_wider():
    found = draw_overlay(np.zeros((100, 1200), np.uint8), np.zeros((100, 1200), np.uint8), np.array([[50, 30, 90, 60]]))
    assert found[45].any(axis=1).sum() == 2 * 3
