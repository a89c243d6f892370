import numpy as np
import pytest

from custom.inference.overlay import draw_montage, draw_overlay


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


@pytest.mark.parametrize("values", [None, [3, 7]])
def test_many_boxes_as_if_drawn_alone(values):
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (40, 50), np.uint8), rng.integers(0, 9, (40, 50)).astype(np.uint16)
    boxes = np.array([[5, 5, 20, 20], [30, 10, 45, 35]])
    numbers = values or [1, 2]
    expected = np.repeat(image[..., None], 3, axis=2)
    for k, box in zip(numbers, boxes, strict=True):
        expected = draw_overlay(expected, np.where(labels == k, labels, 0), box[None], [k])
    np.testing.assert_array_equal(draw_overlay(image, labels, boxes, values), expected)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(
    ("depth", "boxes", "shown"), [(30, [[2, 2, 3, 60, 30, 5]], [3, 4, 5]), (30, [[2, 2, 0, 60, 30, 29]], 12)]
)
def test_montage(colour, depth, boxes, shown):
    volume = np.full((depth, 40, 80, 3) if colour else (depth, 40, 80), 90, np.uint8)
    labels = np.zeros((depth, 40, 80), np.uint8)
    labels[:, 10:20, 10:20] = 1
    asked = []

    class Captions(list):
        def __getitem__(self, z):
            asked.append(z)
            return f"z {z}"

    found = draw_montage(volume, labels, np.array(boxes, float), Captions())
    count = len(asked)
    assert asked == shown if isinstance(shown, list) else (count, asked[0], asked[-1]) == (shown, 0, depth - 1)
    columns = min(count, 4)
    height, width = 144, 288
    assert found.shape == (-(-count // columns) * (height + 18), columns * (width + 2), 3)
    tile = found[18 : 18 + height, 1 : 1 + width]  # 3.6 times as large as the slice
    assert (tile[0] == 90).all()
    assert (tile[60, 50] == np.uint8(0.7 * 90 + 0.3 * np.array([64, 255, 64]))).all()


def test_montage_draws_only_the_boxes_of_a_slice():
    volume, labels = np.zeros((5, 20, 20), np.uint8), np.zeros((5, 20, 20), np.uint8)
    boxes = np.array([[2, 2, 0, 8, 8, 1], [10, 10, 1, 16, 16, 2.0]])
    found = draw_montage(volume, labels, boxes, ["" for _ in range(5)])
    tiles = [found[18:, n * 290 + 1 : n * 290 + 289] for n in range(3)]
    green, blue = np.array([64, 255, 64]), np.array([80, 140, 255])
    shown = [[bool((tile == colour).all(axis=2).any()) for colour in (green, blue)] for tile in tiles]
    assert shown == [[True, False], [True, True], [False, True]]
